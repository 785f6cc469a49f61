// The store cannot write while the gateway serves: it goes on, says so, refuses what it could not keep, and recovers.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { chat, request, scenario, startGateway, until } from '../lib/gateway.mjs';

const ADMIN = 'admin-secret-0815';
const config = { auth: { admin_secret: ADMIN }, 'provider demo': { type: 'demo', credentials: ['demo-account-one', 'demo-account-two'] } };

const admin = (gw, method, path, body) => request(gw, { path: `/admin/api${path}`, method, body, key: ADMIN });
const readyz = async (gw) => (await request(gw, { path: '/readyz', key: null })).text.trim();
const state = (gw, ...names) => join(gw.dir, 'state', ...names);

async function serves(gw, n, prefix) {
    for (let i = 0; i < n; i++) {
        const answer = await request(gw, { body: chat('demo', 'hello'), headers: { 'x-request-id': `${prefix}-${i}` } });
        assert.equal(answer.status, 200, answer.text);
    }
}

/** What every outage looks like from outside; `end` ends it. */
async function outage(gw, why, end) {
    await serves(gw, 10, 'during');
    await until(async () => (await readyz(gw)).startsWith('ready, degraded: '), 'the trouble to be told');
    assert.match(await readyz(gw), why);
    assert.equal((await request(gw, { path: '/healthz', key: null })).status, 200);
    assert.match((await admin(gw, 'GET', '/stats')).text, why, 'the operator is told, too');

    const [{ id }] = (await admin(gw, 'GET', '/credentials')).json.data;
    const before = (await admin(gw, 'GET', `/credentials/${id}`)).json;
    for (const [method, path, body] of [
        ['POST', '/credentials', { provider: 'demo', secret: 'demo-account-three' }],
        ['PATCH', `/credentials/${id}`, { label: 'renamed' }],
        ['POST', '/keys', { name: 'somebody' }],
    ]) {
        const answer = await admin(gw, method, path, body);
        assert.equal(answer.status, 500, `${method} ${path}: ${answer.text}`);
        assert.match(answer.error.message, why);
    }
    assert.equal((await admin(gw, 'GET', `/credentials/${id}`)).json.label, before.label, 'what was refused has no effect');
    assert.deepEqual((await admin(gw, 'GET', '/keys')).json.data.filter((k) => k.source === 'api'), []);
    await serves(gw, 5, 'still');

    await end();
    await until(async () => (await readyz(gw)) === 'ready', 'the store to work again', 40_000);
    await gw.waitLog(/writing works again/);
    const renamed = await admin(gw, 'PATCH', `/credentials/${id}`, { label: 'renamed' });
    assert.equal(renamed.status, 200, renamed.text);
    await serves(gw, 5, 'after');
}

/** Nothing of what was served is missing, also after a restart. */
async function checkKept(gw, asked) {
    const rows = (await admin(gw, 'GET', '/requests?limit=500')).json.data;
    assert.equal(rows.length, asked);
    assert.equal(new Set(rows.map((r) => r.id)).size, asked);
    await gw.restart();
    const credentials = (await admin(gw, 'GET', '/credentials')).json.data;
    assert.equal(credentials.reduce((sum, c) => sum + c.requests, 0), asked);
    assert.equal(credentials.filter((c) => c.label === 'renamed').length, 1);
    assert.equal((await admin(gw, 'GET', '/usage?by=provider')).json.data[0].requests, asked);
}

scenario('another program holds the database', { timeout: 120_000 }, async (t) => {
    const gw = await startGateway(t, { config });
    await serves(gw, 5, 'before');
    await until(async () => (await admin(gw, 'GET', '/requests')).json.data.length === 5, 'all to be written');
    const db = new DatabaseSync(state(gw, 'chatmux.db'));
    db.exec('BEGIN IMMEDIATE');
    await outage(gw, /locked by another program; end it/, () => (db.exec('ROLLBACK'), db.close()));
    await checkKept(gw, 25);
});

/** No file of the process may grow beyond so many bytes. */
const limitFiles = (gw, bytes) => spawnSync('prlimit', ['--pid', String(gw.pid), `--fsize=${bytes}:unlimited`]);

scenario('files may not grow', { timeout: 120_000 }, async (t) => {
    const gw = await startGateway(t, { config });
    await serves(gw, 5, 'before');
    await until(async () => (await admin(gw, 'GET', '/requests')).json.data.length === 5, 'all to be written');
    const limited = limitFiles(gw, Math.min(statSync(state(gw, 'chatmux.db-wal')).size, 4096));
    if (limited.error || limited.status !== 0) return t.skip('no prlimit here');
    await outage(gw, /reading or writing failed .*check the disk/, () => assert.equal(limitFiles(gw, 'unlimited').status, 0));
    await checkKept(gw, 25);
});

const NAMESPACE = ['unshare', '-m', '-r'];

scenario('the disk is full', { timeout: 120_000 }, async (t) => {
    if (spawnSync(NAMESPACE[0], [...NAMESPACE.slice(1), 'sh', '-c', 'mount -t tmpfs -o size=1m none /mnt']).status !== 0) return t.skip('no mount of our own here');
    const gw = await startGateway(t, { config, launcher: (g) => [...NAMESPACE, 'sh', '-c', `mount -t tmpfs -o size=12m none '${state(g)}' && exec "$@"`, 'sh'] });
    await serves(gw, 5, 'before');
    const filler = `/proc/${gw.pid}/root${state(gw, 'filler')}`;
    for (let step = 1 << 20; step >= 1; step = Math.floor(step / 4)) {
        try {
            for (;;) writeFileSync(filler, Buffer.alloc(step), { flag: 'a' });
        } catch (error) {
            assert.equal(error.code, 'ENOSPC');
        }
    }
    await outage(gw, /the disk is full; make room on it/, () => rmSync(filler));
    const rows = (await admin(gw, 'GET', '/requests?limit=500')).json.data;
    assert.equal(rows.length, 25, 'the log has what was served meanwhile');
});

scenario('a start without room says so', async (t) => {
    const start = startGateway(t, { config, launcher: () => ['sh', '-c', 'ulimit -f 0 && exec "$@"', 'sh'] });
    await assert.rejects(start, (error) => /ended at start \(2\)/.test(error.message) && /File too large/.test(error.message));
});
