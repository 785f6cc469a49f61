// Why a request was served as it was: explain, its dry run, and what headers tell.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { binary, chat, cleanEnv, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const ADMIN = 'admin-secret-4711';

async function setUp(t, config = {}) {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1', 'sk-up-2'] });
    const gw = await startGateway(t, { config: { auth: { admin_secret: ADMIN, keys: [CLIENT_KEY] }, retry: { retries: 0 }, 'provider up': providerFor(fake), 'provider demo': { type: 'demo' }, ...config } });
    const explain = (...args) =>
        new Promise((done) => {
            const child = spawn(binary, ['explain', ...args, '-c', gw.file], { cwd: gw.dir, env: cleanEnv(gw.dir), stdio: ['ignore', 'pipe', 'pipe'] });
            let out = '';
            for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (out += text));
            child.once('close', (code) => done({ code, out }));
        });
    return { fake, gw, explain };
}

scenario('a request of the log, with every attempt', async (t) => {
    const { fake, gw, explain } = await setUp(t);
    fake.next(play.rateLimited(30));
    const r = await request(gw, { body: chat('m1'), headers: { 'x-request-id': 'why-1' } });
    assert.equal(r.status, 200);
    let told;
    await until(async () => (told = await explain('why-1')).code === 0);
    assert.match(told.out, /^request why-1: ok, status 200, \d+ ms/m);
    assert.match(told.out, /^1 +up +up#1 +m1 +rate_limited /m);
    assert.match(told.out, /^2 +up +up#2 +m1 +ok /m);
    assert.match(told.out, /^up#1 +cooling +rate_limited$/m);
    assert.equal(JSON.parse((await explain('why-1', '--json')).out).attempts.length, 2);
    const missing = await explain('why-2');
    assert.equal(missing.code, 1);
    assert.match(missing.out, /there is no request "why-2"/);
});

scenario('a dry run: the targets in their order, who would be asked, and why not', async (t) => {
    const { fake, gw, explain } = await setUp(t, { 'model best': { targets: ['up/m1', 'demo/demo'] } });
    const plan = async (...args) => JSON.parse((await explain('--dry-run', '--json', ...args)).out);
    let p = await plan('model=best', 'key=key#1');
    assert.deepEqual([p.strategy, p.key, p.targets.map((x) => x.provider)], ['priority', { name: 'key#1', allowed: true, enabled: true }, ['up', 'demo']]);
    assert.deepEqual(p.targets[0].credentials.map((c) => [c.label, c.state]), [
        ['up#1', 'ok'],
        ['up#2', 'ok'],
    ]);
    assert.equal(p.targets[0].credentials.filter((c) => c.chosen).length, 1);
    assert.equal(fake.requests.length, 0, 'nothing was asked');

    for (const behave of [play.badKey(), play.rateLimited(60)]) fake.next(behave);
    await request(gw, { body: chat('m1') });
    p = await plan('model=best');
    assert.match(p.targets[0].excluded, /none of 2 credentials can serve now/);
    assert.deepEqual(p.targets[0].credentials.map((c) => `${c.state} ${c.chosen}`).sort(), ['cooling false', 'disabled false']);
    assert.equal(p.targets[1].excluded, null);
    const told = await explain('--dry-run', 'model=best');
    assert.match(told.out, /nobody would be asked: /);
    assert.match(told.out, /^-> +demo#1 +ok /m);
    for (const args of [['model=nothing-like-it'], ['mode=x'], [], ['model=best', 'key=nobody']]) assert.equal((await explain('--dry-run', ...args)).code, 1);
});

scenario('a dry run leaves no trace', async (t) => {
    const { gw, explain } = await setUp(t);
    const figures = async () => {
        const r = await request(gw, { path: '/admin/api/credentials', method: 'GET', key: ADMIN });
        return r.json.data.map((c) => [c.label, c.requests, c.last_used, c.month_requests, c.inflight]);
    };
    for (let i = 0; i < 3; i++) await request(gw, { body: chat('m1') });
    const before = await figures();
    const shown = new Set();
    for (let i = 0; i < 6; i++) shown.add(JSON.parse((await explain('--dry-run', '--json', 'model=m1')).out).targets[0].credentials.find((c) => c.chosen).label);
    assert.deepEqual(await figures(), before);
    assert.equal(shown.size, 1, 'it is still the same one whose turn it is');
    const r = await request(gw, { body: chat('m1'), headers: { 'x-chatmux-admin': ADMIN } });
    assert.deepEqual(JSON.parse(r.headers['x-chatmux-route']).map((a) => a.credential), [...shown]);
});

scenario('server-timing for everybody, the route for the operator', async (t) => {
    const { fake, gw } = await setUp(t);
    fake.next(play.after(200, play.ok()));
    const r = await request(gw, { body: chat('m1') });
    const [, read, queue, upstream] = r.headers['server-timing'].match(/^read;dur=([\d.]+), queue;dur=([\d.]+), upstream;dur=([\d.]+)$/).map(Number);
    assert.ok(read < 100 && queue < 100 && upstream >= 199, r.headers['server-timing']);
    assert.equal(r.headers['x-chatmux-route'], undefined);

    fake.next(play.rateLimited(30));
    const told = await request(gw, { body: chat('m1'), headers: { 'x-chatmux-admin': ADMIN } });
    assert.deepEqual(JSON.parse(told.headers['x-chatmux-route']).map((a) => a.result ?? 'serves'), ['rate_limited', 'serves']);
    const wrong = await request(gw, { body: chat('m1'), headers: { 'x-chatmux-admin': 'a guess' } });
    assert.equal(wrong.status, 401);
    assert.match(wrong.json.error.message, /x-chatmux-admin/);
});
