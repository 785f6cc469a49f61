// Secrets of a busy run: in no log line, no answer, no list, no figure, and in no core of the gateway afterwards.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { chat, request, runCommand, sanitized, scenario, startGateway, until } from '../lib/gateway.mjs';
import { sessionToken, startFakeHix } from '../lib/fake_hix.mjs';
import { errorBody, play, startFakeOpenai } from '../lib/fake_openai.mjs';
import { startHttpProxy } from '../lib/fake_proxy.mjs';
import { findInMemory } from '../lib/memory.mjs';
import { connect, rawChat } from '../lib/raw.mjs';

const secret = (prefix) => `${prefix}${randomBytes(18).toString('base64url').replaceAll(/[-_]/g, 'x')}`;

/** A gateway that has served, failed, reloaded and lost clients, with everything it said on the way. echo: upstreams say the credentials back. */
async function busyRun(t, { echo }) {
    const s = {
        client: secret('sk-client-'),
        clientEnv: secret('sk-clientenv-'),
        wrong: secret('sk-wrong-'),
        admin: secret('admin-'),
        master: secret('master-'),
        up: [1, 2, 3].map((n) => secret(`sk-up${n}-`)),
        upEnv: secret('sk-upenv-'),
        dead: secret('sk-dead-'),
        late: secret('sk-late-'),
        header: secret('header-'),
        proxy: secret('pass-'),
        hix: sessionToken(secret('hix')),
    };
    const proxyBasic = Buffer.from(`user:${s.proxy}`).toString('base64');
    const upKeys = [...s.up, s.upEnv, s.late, s.dead];
    const fake = await startFakeOpenai(t, { keys: upKeys, strict: false });
    const direct = await startFakeOpenai(t, { keys: [s.up[0]], strict: false });
    const hix = await startFakeHix(t, { sessions: [s.hix], strict: false });
    const proxy = await startHttpProxy(t);
    fake.key(s.dead, play.error(401, `Incorrect API key provided: ${echo ? s.dead : '****'}.`, { code: 'invalid_api_key' }));
    const config = (creds) => ({
        auth: { keys: [s.client, '${CLIENT_FROM_ENV}'], admin_secret: s.admin },
        store: { master_key: s.master },
        log: { level: 'trace' },
        retry: { retries: 0, max_wait: '1s' },
        'provider up': { type: 'openai', base_url: fake.base, credentials: creds, models: ['m1'], 'header.X-Secret-Token': s.header, proxy: `http://user:${s.proxy}@127.0.0.1:${proxy.port}` },
        'provider direct': { type: 'openai', base_url: direct.base, credentials: [s.up[0]], models: ['m2=m1'] },
        'provider hix': { type: 'hix', base_url: hix.base, credentials: [s.hix] },
    });
    const gw = await startGateway(t, { config: config([...s.up, s.dead, '${UP_FROM_ENV}']), env: { CLIENT_FROM_ENV: s.clientEnv, UP_FROM_ENV: s.upEnv } });
    const said = [];
    const ask = async (options) => {
        const answer = await request(gw, { key: s.client, ...options });
        said.push(`${JSON.stringify(answer.headers)}\n${answer.text}`);
        return answer;
    };
    const leave = async (body, key) => {
        const raw = await connect(t, gw);
        raw.send(rawChat(body, { key }));
        await sleep(50);
        raw.close();
    };
    const blurt = echo ? `${s.up.join(' ')} ${s.upEnv}` : 'nothing';
    let served = 0;
    const round = async () => {
        for (let i = 0; i < 12; i++) {
            const answer = await ask({ body: chat('m1', `question ${i}`, { stream: i % 2 === 0 }), key: i % 3 ? s.client : s.clientEnv });
            served += answer.status === 200;
        }
        served += (await ask({ body: chat('m2') })).status === 200;
        await ask({ body: chat('hix/gpt-4o-mini') });
        await ask({ body: chat('m1'), key: s.wrong });
        await ask({ path: `/v1/models?key=${s.client}`, key: null });
        await ask({ path: `/v1/models?key=${s.wrong}`, key: null });
        await ask({ path: '/v1/models', headers: { 'x-api-key': s.client }, key: null });
        await ask({ path: '/v1/models/nonesuch' });
        await ask({ body: '{"model":' });
        await ask({ path: '/nonesuch' });
        fake.next(play.error(400, `bad: ${blurt}`));
        await ask({ body: chat('m1') });
        fake.next(play.status(500, `<html>${blurt}</html>`), play.errorEvent(blurt));
        for (let i = 0; i < 2; i++) await ask({ body: chat('m1', 'x', { stream: true }) });
        direct.next(play.cutMidStream());
        await ask({ body: chat('m2', 'x', { stream: true }) }).catch((error) => said.push(String(error)));
        fake.next(play.hangAfter(['one ']));
        await leave(chat('m1', 'x', { stream: true }), s.client);
        await ask({ path: '/metrics' });
        await ask({ path: '/readyz' });
    };
    await round();
    const before = fake.requests.length;
    gw.writeConfig(config([...s.up.slice(1), s.late, '${UP_FROM_ENV}']));
    gw.signal('SIGHUP');
    await until(() => /configuration reloaded/.test(gw.output), 'the reload');
    await round();
    assert.ok(served > 20, `${served} requests were served`);
    assert.ok(fake.requests.length > before);
    for (const what of ['print-config', 'check', 'status']) said.push(runCommand([what, '-c', gw.file], { env: { CLIENT_FROM_ENV: s.clientEnv, UP_FROM_ENV: s.upEnv } }).out);
    const texts = [...Object.values(s).flat(), proxyBasic];
    return { gw, texts, said, s };
}

scenario('nothing that is said holds a secret', async (t) => {
    const { gw, texts, said } = await busyRun(t, { echo: true });
    await gw.stop();
    assert.match(gw.output, /"level":"debug"/, 'the log was talkative');
    for (const [what, text] of [['the log', gw.output], ...said.map((text, i) => [`answer ${i}`, text])])
        for (const secret of texts) {
            // also its middle: enough to be found, not the few characters a fingerprint shows
            const middle = secret.slice(10, 24);
            assert.ok(!text.includes(middle), `${what} has ${secret}: ${text.slice(Math.max(0, text.indexOf(middle) - 200), text.indexOf(middle) + 60)}`);
        }
    assert.ok(said.some((text) => /#[0-9a-f]{8}/.test(text)), 'print-config shows fingerprints');
});

scenario('a core of the gateway that has become idle holds none', { skip: sanitized && 'a sanitizer build keeps secrets on its heap' }, async (t) => {
    const { gw, texts, s } = await busyRun(t, { echo: false });
    const middles = texts.map((text) => text.slice(10, 26));
    await sleep(200);
    const found = findInMemory(gw.pid, middles);
    assert.ok(found.some(({ text, hidden }) => hidden && s.up[1].includes(text)), 'the search finds what is there, in hidden memory');
    const bare = found.filter(({ hidden }) => !hidden);
    assert.equal(bare.length, 0, bare.map(({ text, mapping, around }) => `${texts.find((x) => x.includes(text)).slice(0, 10)} in ${mapping}: ${around}`).join('\n'));
});

scenario('no core is written unless the operator wants it', async (t) => {
    const demo = { 'provider demo': { type: 'demo' } };
    const raise = 'ulimit -S -c unlimited 2>/dev/null || ulimit -S -c "$(ulimit -H -c)"';
    const [atMost] = execFileSync('/bin/sh', ['-c', `${raise}; ulimit -c`], { encoding: 'utf8' }).split('\n');
    const softLimit = async (server) => {
        const gw = await startGateway(t, { config: { ...demo, server }, launcher: () => ['/bin/sh', '-c', `${raise}; exec "$0" "$@"`] });
        return /Max core file size +(\S+)/.exec(readFileSync(`/proc/${gw.pid}/limits`, 'utf8'))[1];
    };
    assert.match(await softLimit({}), /^[01]$/, 'one byte: that also stops a program the kernel would pipe a core to');
    if (atMost === 'unlimited' && !sanitized) assert.equal(await softLimit({ core_dumps: true }), 'unlimited');
});
