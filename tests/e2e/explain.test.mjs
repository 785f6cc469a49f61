// Why a request was served as it was: explain, its dry run, and what headers tell.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
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

async function downFor(t) {
    const fake = await startFakeOpenai(t, { keys: Array.from({ length: 8 }, (_, i) => `sk-down-${i}`) });
    fake.always(play.error(500, 'oops', { type: 'server_error' }));
    return providerFor(fake);
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
    const accounts = async () => (await request(gw, { path: '/admin/api/credentials', method: 'GET', key: ADMIN })).json.data;
    const figures = (list) => list.map((c) => [c.label, c.requests, c.month_requests, c.inflight]);
    for (let i = 0; i < 3; i++) await request(gw, { body: chat('m1') });
    const before = await accounts();
    await sleep(100);
    const shown = new Set();
    for (let i = 0; i < 6; i++) shown.add(JSON.parse((await explain('--dry-run', '--json', 'model=m1')).out).targets[0].credentials.find((c) => c.chosen).label);
    const after = await accounts();
    assert.deepEqual(figures(after), figures(before));
    // told by two clocks: a millisecond more or less is no use of it
    after.forEach((c, i) => c.last_used !== before[i].last_used && assert.ok(Math.abs(Date.parse(c.last_used) - Date.parse(before[i].last_used)) < 50, c.last_used));
    assert.equal(shown.size, 1, 'it is still the same one whose turn it is');
    const r = await request(gw, { body: chat('m1'), headers: { 'x-chatmux-admin': ADMIN } });
    assert.deepEqual(JSON.parse(r.headers['x-chatmux-route']).map((a) => a.credential), [...shown]);
});

scenario('why others were not chosen, also when the first attempt served', async (t) => {
    const { fake, gw } = await setUp(t);
    let n = 0;
    const others = async () => {
        const id = `others-${++n}`;
        assert.equal((await request(gw, { body: chat('m1'), headers: { 'x-request-id': id } })).status, 200);
        let row;
        await until(async () => (row = await request(gw, { path: `/admin/api/requests/${id}`, key: ADMIN })).status === 200);
        return [row.json.attempts.length, row.json.others];
    };
    assert.deepEqual(await others(), [1, []], 'all can serve');
    fake.key('sk-up-1', play.error(404, 'no such model', { type: 'invalid_request_error', code: 'model_not_found' }));
    const without = [{ credential: 'up#1', state: 'ok', reason: 'without this model' }];
    let told;
    do told = await others();
    while (told[0] === 1 && n < 5);
    assert.deepEqual(told, [2, without]);
    assert.deepEqual(await others(), [1, without]);
    const accounts = (await request(gw, { path: '/admin/api/credentials', key: ADMIN })).json.data;
    await request(gw, { path: `/admin/api/credentials/${accounts[0].id}`, method: 'PATCH', body: { enabled: false }, key: ADMIN });
    assert.deepEqual(await others(), [1, [{ credential: 'up#1', state: 'disabled', reason: 'operator' }]]);
});

scenario('where the time of an attempt went', async (t) => {
    const { fake, gw, explain } = await setUp(t);
    const attempt = async (id) => {
        const r = await request(gw, { body: { ...chat('m1'), stream: true }, headers: { 'x-request-id': id } });
        assert.equal(r.status, 200);
        let told;
        await until(async () => (told = await explain(id, '--json')).code === 0);
        return JSON.parse(told.out).attempts[0];
    };
    fake.next(async (rec) => {
        rec.res.writeHead(200, { 'content-type': 'text/event-stream' });
        rec.res.flushHeaders();
        await sleep(300);
        rec.res.write('data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m1","choices":[{"index":0,"delta":{"content":"at last"},"finish_reason":null}]}\n\n');
        await sleep(100);
        rec.res.end('data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n');
    });
    const first = await attempt('phases-1');
    assert.ok(first.connect_ms >= 0 && first.connect_ms <= first.first_byte_ms, JSON.stringify(first));
    assert.ok(first.first_token_ms - first.first_byte_ms >= 250, JSON.stringify(first));
    assert.ok(first.ms - first.first_token_ms >= 50, JSON.stringify(first));
    const second = await attempt('phases-2');
    assert.equal(second.connect_ms, undefined, 'the connection was there');
    assert.ok(second.first_token_ms >= second.first_byte_ms);
    assert.match((await explain('phases-1')).out, /^ATTEMPT .* MS +CONNECT +FIRST BYTE +FIRST TOKEN +TARGET BY +CHOSEN/m);
});

scenario('targets that were passed over, with the reason', async (t) => {
    const { gw, explain } = await setUp(t, {
        'provider up': { type: 'gemini', base_url: 'http://127.0.0.1:9', models: ['m1'] },
        retry: { retries: 0, credentials: 1, max_wait: '0s' },
        'model best': { targets: ['down/m1', 'up/m1', 'demo/demo'], strategy: 'priority' },
        'model gone': { targets: ['down/m1', 'up/m1'], strategy: 'priority' },
        'provider down': { ...(await downFor(t)), breaker_attempts: 4 },
    });
    const row = async (id, model, status) => {
        const r = await request(gw, { body: chat(model), headers: { 'x-request-id': id } });
        assert.equal(r.status, status, r.text);
        let told;
        await until(async () => (told = await explain(id, '--json')).code === 0);
        return JSON.parse(told.out);
    };
    let r;
    for (let i = 0; i < 4; i++) r = await row(`skip-fail-${i}`, 'best', 502);
    assert.deepEqual(r.attempts.map((a) => [a.provider, a.target_by]), [['down', 'priority']]);
    assert.deepEqual(r.skipped.map((s) => s.provider), ['up', 'demo']);
    assert.match(r.skipped[1].reason, /retry\.credentials/);

    r = await row('skip-1', 'best', 200);
    assert.deepEqual(r.attempts.map((a) => [a.provider, a.target_by, a.result]), [['demo', 'skipped', 'ok']]);
    assert.deepEqual(r.skipped.map((s) => [s.provider, s.model]), [
        ['down', 'm1'],
        ['up', 'm1'],
    ]);
    assert.match(r.skipped[0].reason, /^down fails too often now and gets no requests/);
    assert.match(r.skipped[1].reason, /^up has no credential/);
    assert.match((await explain('skip-1')).out, /^down +m1 +down fails too often/m);
    r = await row('skip-2', 'gone', 503);
    assert.deepEqual([r.attempts, r.skipped.map((s) => s.provider)], [[], ['down', 'up']]);
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
