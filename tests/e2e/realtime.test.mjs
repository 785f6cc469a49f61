// Realtime sessions: /v1/realtime, relayed both ways. What is wrong with frames and handshakes is in realtime_frames.test.mjs.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket';
import { startFakeRealtime, USAGE } from '../lib/fake_realtime.mjs';
import { atEnd, CLIENT_KEY, makeDir, request, sanitized, scenario, startGateway, until } from '../lib/gateway.mjs';
import { acceptFor, BINARY, Client, CLOSE, connectRealtime, TEXT } from '../lib/websocket.mjs';

const SECRET = 'admin-4711';
const admin = async (gw, path, options) => (await request(gw, { path: `/admin/api${path}`, key: SECRET, ...options })).json;

async function start(t, { fake: fakeOptions = {}, provider = {}, auth = {}, ...config } = {}) {
    const fake = await startFakeRealtime(t, fakeOptions);
    const gw = await startGateway(t, { config: { auth: { admin_secret: SECRET, ...auth }, 'provider up': fake.provider(provider), ...config } });
    return { fake, gw };
}

/** A session that is open: its two ends. */
async function open(t, { fake, gw }, options) {
    const before = fake.sessions.length;
    const client = await connectRealtime(t, gw, options);
    assert.equal(client.answer.status, 101, client.answer.text);
    assert.equal((await client.message()).json.type, 'session.created');
    return { client, up: fake.sessions[before] };
}

/** The events of one answer. */
async function answer(client, event = {}) {
    const events = [];
    client.event({ type: 'response.create', ...event });
    while (events.at(-1)?.type !== 'response.done') events.push((await client.message()).json);
    return events;
}

const line = (gw, client) => gw.accessLine(client.answer.headers['x-request-id']);

scenario('a session: what each side says reaches the other as it is, figures are settled once', async (t) => {
    const { fake, gw } = await start(t, { 'price gpt-realtime': { input: 4, cache_read: 0.4, output: 16 } });
    const { client, up } = await open(t, { fake, gw });
    assert.equal(client.answer.headers['sec-websocket-accept'], acceptFor(client.nonce));
    assert.equal(client.answer.headers.connection, 'Upgrade');
    assert.equal(client.answer.headers['x-chatmux-provider'], 'up');
    assert.equal(client.answer.headers['openai-processing-ms'], '7');
    assert.equal(client.answer.headers['set-cookie'], undefined);
    const said = '{ "type":"conversation.item.create",  "item":{"n":1.50,"ü":"\\u00fc"} }';
    client.send(said);
    assert.equal((await client.message()).json.type, 'conversation.item.created');
    assert.equal(up.messages[0].data.toString(), said);
    const events = await answer(client);
    assert.deepEqual(
        events.map((e) => e.type),
        ['response.created', 'response.output_text.delta', 'response.output_text.delta', 'response.output_text.done', 'response.done'],
    );
    await answer(client);
    const sound = Buffer.from([0, 255, 1, 254]);
    client.send(sound);
    const echo = await client.message();
    assert.deepEqual([echo.op, echo.data], [BINARY, sound]);
    assert.equal((await gw.metrics()).get('chatmux_streams_open'), 1);
    client.close(4001, 'bye');
    const end = await client.message();
    assert.deepEqual([end.op, end.code, end.reason], [CLOSE, 4001, 'bye']);
    assert.deepEqual(await up.closed, { code: 4001, reason: 'bye' });
    await client.closed;
    const row = await line(gw, client);
    assert.deepEqual([row.status, row.outcome, row.attempts, row.tokens_in, row.tokens_out, row.model], [101, 'ok', 1, 420, 240, 'gpt-realtime']);
    assert.equal(row.bytes_out > 500 && row.bytes_in > said.length, true);
    const cost = (2 * 146 * 4 + 2 * 64 * 0.4 + 2 * 120 * 16) / 1e6;
    const usage = await until(async () => (await admin(gw, '/usage?by=model')).data.find((u) => u.group === 'gpt-realtime'), 'the ledger');
    assert.deepEqual(
        [usage.requests, usage.input_uncached, usage.input_cache_read, usage.output_text],
        [1, 292, 128, 240],
    );
    assert.ok(Math.abs(usage.cost_usd - cost) < 2e-6, `${usage.cost_usd} instead of ${cost}`);
    const log = await admin(gw, `/requests/${client.answer.headers['x-request-id']}`);
    assert.equal(log.outcome, 'ok');
    assert.deepEqual(log.session, { answers: 2, closed_by_upstream: 0, audio_input: 120, audio_cache_read: 80, audio_output: 200 });
    const metrics = await gw.metrics();
    assert.equal(metrics.get('chatmux_tokens_total{provider="up",model="gpt-realtime",type="output"}'), 240);
    for (const [type, n] of [['input', 120], ['cache_read', 80], ['output', 200]])
        assert.equal(metrics.get(`chatmux_audio_tokens_total{provider="up",model="gpt-realtime",type="${type}"}`), n);
    assert.equal(metrics.get('chatmux_realtime_sessions'), 0);
    assert.equal(metrics.get('chatmux_requests_total{surface="openai",provider="up",model="gpt-realtime",outcome="ok"}'), 1);
    assert.equal(metrics.get('chatmux_streams_open'), 0);
    assert.deepEqual(fake.problems, []);
});

scenario("the SDK's client for Node, over TLS", async (t) => {
    const dir = makeDir();
    const [cert, key] = [join(dir, 'c'), join(dir, 'k')];
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-keyout', key, '-out', cert, '-subj', '/CN=a', '-addext', 'subjectAltName=IP:127.0.0.1']);
    assert.equal(made.status, 0);
    const fake = await startFakeRealtime(t);
    const gw = await startGateway(t, {
        config: (gw) => ({
            server: { listen: [`127.0.0.1:${gw.port}`, `unix:${join(gw.dir, 's')}`], tls_cert: cert, tls_key: key },
            'provider up': fake.provider(),
        }),
        readyTarget: (gw) => ({ socketPath: join(gw.dir, 's') }),
    });
    const sdk = new OpenAI({ apiKey: CLIENT_KEY, baseURL: `https://127.0.0.1:${gw.port}/v1` });
    const rt = new OpenAIRealtimeWS({ model: 'gpt-realtime', options: { ca: readFileSync(cert) } }, sdk);
    atEnd(t, () => rt.socket.terminate());
    const errors = [];
    let text = '';
    rt.on('error', (e) => errors.push(e.message));
    rt.on('response.output_text.delta', (e) => (text += e.delta));
    const done = new Promise((ok) => rt.on('response.done', ok));
    await new Promise((ok) => rt.on('session.created', ok));
    rt.send({ type: 'response.create', answer: { text: 'Ü ber '.repeat(20_000) } });
    assert.deepEqual((await done).response.usage, USAGE);
    assert.equal(text, 'Ü ber '.repeat(20_000));
    const closed = new Promise((ok) => rt.socket.on('close', (code, reason) => ok([code, reason.toString()])));
    fake.sessions[0].close(4100, 'enough');
    assert.deepEqual(await closed, [4100, 'enough']);
    assert.deepEqual([errors, fake.problems], [[], []]);
});

scenario("the SDK's client for browsers: the key as a subprotocol", async (t) => {
    const { fake, gw } = await start(t);
    const sdk = new OpenAI({ apiKey: CLIENT_KEY, baseURL: gw.base, dangerouslyAllowBrowser: true });
    const rt = new OpenAIRealtimeWebSocket({ model: 'gpt-realtime', onURL: (url) => (url.protocol = 'ws:') }, sdk);
    const done = new Promise((ok) => rt.on('response.done', ok));
    await new Promise((ok) => rt.on('session.created', ok));
    assert.equal(rt.socket.protocol, 'realtime');
    assert.equal(rt.socket.extensions, '');
    rt.send({ type: 'response.create' });
    assert.equal((await done).response.status, 'completed');
    const closed = new Promise((ok) => rt.socket.addEventListener('close', ok));
    rt.close({ code: 3001, reason: 'thanks' });
    const event = await closed;
    assert.deepEqual([event.code, event.wasClean], [3001, true]);
    assert.deepEqual(await fake.sessions[0].closed, { code: 3001, reason: 'thanks' });
    assert.deepEqual(fake.problems, []);
    assert.doesNotMatch(gw.output, /openai-insecure-api-key|sk-test-client/);
});

scenario('what goes up: our credential, the model as the provider calls it, the rest of the query, the beta header', async (t) => {
    const { fake, gw } = await start(t, { fake: { query: 'model=gpt-4o-rt%2Fx&intent=talk' }, provider: { models: ['mine=gpt-4o-rt/x'] } });
    const beta = await open(t, { fake, gw }, { path: '/v1/realtime?intent=talk&model=mine', protocols: ['realtime', `openai-insecure-api-key.${CLIENT_KEY}`, 'openai-beta.realtime-v1'], key: null, headers: { Cookie: 'a=b', Origin: 'https://x.example', 'X-Forwarded-For': '1.2.3.4' } });
    assert.equal(beta.client.answer.headers['sec-websocket-protocol'], 'realtime');
    assert.equal(beta.up.beta, 'realtime=v1');
    const named = await open(t, { fake, gw }, { path: `/hf/../v1/realtime?model=mine&intent=talk&key=${CLIENT_KEY}`.replace('/hf/..', ''), key: null, headers: { 'OpenAI-Beta': 'realtime=v2', 'Sec-WebSocket-Extensions': 'permessage-deflate' } });
    assert.equal(named.up.beta, 'realtime=v2');
    assert.equal(named.client.answer.headers['sec-websocket-extensions'], undefined);
    assert.equal(named.client.answer.headers['sec-websocket-protocol'], undefined);
    const azure = await startFakeRealtime(t, { path: '/openai/realtime', query: 'deployment=gpt-realtime&api-version=2024-10-01-preview' });
    const other = await startFakeRealtime(t, { path: '/rt/ws' });
    const gw2 = await startGateway(t, {
        config: {
            'provider az': { ...azure.provider(), base_url: `http://127.0.0.1:${azure.port}/openai`, 'x.deployments': 'yes', 'x.api_version': '2024-10-01-preview' },
            'provider other': other.provider({ 'x.realtime_url': `ws://127.0.0.1:${other.port}/rt/ws` }),
        },
    });
    await open(t, { fake: azure, gw: gw2 }, { path: '/v1/realtime?deployment=az/gpt-realtime&api-version=9' });
    await open(t, { fake: other, gw: gw2 }, { path: '/v1/realtime?model=other/gpt-realtime' });
    assert.deepEqual([...fake.problems, ...azure.problems, ...other.problems], []);
});

scenario('1 MB messages both ways, as text and bytes', async (t) => {
    const both = await start(t, { fake: { onMessage: (s, m) => s.send(m.binary ? m.data : m.data.toString()) } });
    const { client } = await open(t, both);
    for (let i = 0; i < 3; i++) {
        const text = `${i}ü`.repeat(350_000);
        client.send(text);
        const back = await client.message();
        assert.equal(back.op === TEXT && back.data.toString() === text, true);
        const bytes = Buffer.alloc(1 << 20, i + 200);
        client.send(bytes);
        const echo = await client.message();
        assert.equal(echo.op === BINARY && echo.data.equals(bytes), true);
    }
});

scenario('close codes of the upstream, and its end without one', async (t) => {
    const keys = Array.from({ length: 4 }, (_, i) => `sk-up-${i}`); // three cuts in a row rest an account
    const both = await start(t, { fake: { keys }, realtime: { max_message: '1m' } });
    const cases = [
        ['4000 with a reason', (s) => s.close(4000, 'grün'), 4000, /^grün$/, 'ok'],
        ['1000', (s) => s.close(1000), 1000, /^$/, 'ok'],
        ['none', (s) => s.close(), undefined, undefined, 'ok'],
        ['its own trouble', (s) => s.close(1011, 'oops'), 1011, /^oops$/, 'cut'],
        ['cut', (s) => s.socket.destroy(), 1011, /closed without a close frame|broke/, 'cut'],
        ['no UTF-8', (s) => s.send(Buffer.from([0xc3, 0x28]), TEXT), 1011, /UTF-8/, 'cut'],
        ['reserved bits', (s) => s.socket.write(Buffer.from([0xc1, 0])), 1011, /protocol/, 'cut'],
        ['too large', (s) => s.send(Buffer.alloc((1 << 20) + 1)), 1011, /more than 1048576 bytes/, 'cut'],
    ];
    for (const [name, does, code, reason, outcome] of cases) {
        const { client, up } = await open(t, both);
        await answer(client);
        does(up);
        const end = await client.untilClose();
        assert.equal(end.op, CLOSE, name);
        assert.equal(end.code, code, name);
        if (reason) assert.match(end.reason, reason, name);
        await client.closed;
        const row = await line(both.gw, client);
        assert.deepEqual([row.outcome, row.tokens_in, row.tokens_out], [outcome, 210, 120], name);
    }
    assert.equal((await both.gw.metrics()).get('chatmux_tokens_total{provider="up",model="gpt-realtime",type="output"}'), 120 * cases.length);
});

scenario('a client that goes, with a close frame or without: the upstream is closed within a second', async (t) => {
    const both = await start(t);
    for (const [leaves, code] of [
        [(c) => c.socket.destroy(), 1001],
        [(c) => c.socket.end(), 1001],
        [(c) => c.socket.resetAndDestroy(), 1001],
        [(c) => c.close(), undefined],
        [(c) => c.close(1000), 1000],
    ]) {
        const { client, up } = await open(t, both);
        await answer(client);
        const began = performance.now();
        leaves(client);
        assert.equal((await up.closed).code, code);
        await up.gone;
        assert.ok(performance.now() - began < 1000);
        const row = await line(both.gw, client);
        assert.deepEqual([row.outcome, row.tokens_out], [code === 1001 ? 'client_gone' : 'ok', 120]);
    }
    // while the upstream is asked
    both.fake.server.removeAllListeners('upgrade');
    const asked = new Promise((ok) => both.fake.server.on('upgrade', (_, socket) => ok({ gone: new Promise((gone) => socket.on('end', gone).on('close', gone).resume()) })));
    const client = new Client(both.gw);
    const { gone } = await asked;
    client.socket.destroy();
    await gone;
    await until(async () => (await admin(both.gw, '/stats')).attempts === 0, 'the lease to come back');
    assert.deepEqual(both.fake.problems, []);
});

scenario('a refused handshake goes on with the next account, and marks the first one', async (t) => {
    const keys = ['sk-up-one', 'sk-up-two'];
    for (const [status, headers, state] of [
        [401, {}, 'disabled'],
        [429, { 'retry-after': '30' }, 'cooling'],
        [503, {}, 'ok'],
    ]) {
        const both = await start(t, { fake: { keys }, provider: { models: ['gpt-realtime'] }, retry: { retries: 0 } });
        for (const key of keys) if (key === keys[0]) both.fake.refuse.set(key, { status, headers });
        const sessions = [await open(t, both), await open(t, both)]; // one of them began with the first account
        assert.deepEqual(sessions.map((s) => s.up.key), [keys[1], keys[1]]);
        assert.equal(both.fake.refused[0].status, status);
        assert.equal(sessions.some((s) => s.client.answer.headers['x-chatmux-attempts'] === '2'), true);
        const states = (await admin(both.gw, '/credentials')).data.map((c) => c.state);
        assert.deepEqual(states.sort(), [state, 'ok'].sort());
        assert.deepEqual(both.fake.problems, []);
    }
});

scenario('a route of several providers: the next one serves when the first has no sessions, or refuses them', async (t) => {
    const [first, second] = [await startFakeRealtime(t), await startFakeRealtime(t)];
    const gw = await startGateway(t, {
        config: {
            auth: { admin_secret: SECRET },
            retry: { retries: 0 },
            'provider plain': { type: 'openai', base_url: `http://127.0.0.1:${first.port}/v1`, credentials: ['k'], models: ['gpt-realtime'], 'x.tasks': 'chat' },
            'provider first': first.provider(),
            'provider second': second.provider(),
            'model talk': { targets: ['plain/gpt-realtime', 'first/gpt-realtime', 'second/gpt-realtime'] },
        },
    });
    const path = '/v1/realtime?model=talk';
    const { client } = await open(t, { fake: first, gw }, { path });
    assert.equal(client.answer.headers['x-chatmux-provider'], 'first');
    first.refuse.set('sk-up-one', { status: 503 });
    const { client: other } = await open(t, { fake: second, gw }, { path });
    assert.equal(other.answer.headers['x-chatmux-provider'], 'second');
    const pinned = await connectRealtime(t, gw, { path, headers: { 'x-chatmux-target': 'first' } });
    assert.equal(pinned.answer.status, 503);
    assert.deepEqual([...first.problems, ...second.problems], []);
});

scenario('when nobody opens the client gets an error in plain HTTP', async (t) => {
    for (const [refusal, status, code] of [
        [{ status: 401 }, 502, 'upstream_auth'],
        [{ status: 429, headers: { 'retry-after': '30' } }, 429, 'rate_limit_exceeded'],
        [{ status: 503 }, 503, 'overloaded'],
        [{ status: 404 }, 404, 'model_not_found'],
        [{ status: 302, headers: { location: '/' } }, 502, 'upstream_error'],
        [{ status: 400 }, 400, null],
    ]) {
        const both = await start(t, { retry: { retries: 0, max_wait: '0' } });
        both.fake.refuse.set('sk-up-one', refusal);
        const { answer: got } = await connectRealtime(t, both.gw);
        const { error } = JSON.parse(got.text);
        assert.deepEqual([got.status, error.code], [status, code], `${refusal.status}: ${got.text}`);
        assert.match(got.headers['content-type'], /json/);
        assert.doesNotMatch(got.text, /sk-up/);
    }
    const gw = await startGateway(t, { config: { retry: { retries: 0 }, 'provider up': { type: 'openai', base_url: 'http://127.0.0.1:9/v1', credentials: ['k'], models: ['gpt-realtime'] } } });
    assert.equal((await connectRealtime(t, gw)).answer.status, 502);
});

scenario('limits: of the key, of sessions, of budgets', async (t) => {
    const both = await start(t, { realtime: { max_sessions: 3, max_sessions_per_key: 2 }, 'price gpt-realtime': { input: 10, output: 100 } });
    const { gw, fake } = both;
    const make = async (limits) => admin(gw, '/keys', { body: { name: `k${Math.random()}`, ...limits } });
    const told = async (key, status, pattern) => {
        const { answer: got } = await connectRealtime(t, gw, { key });
        assert.equal(got.status, status, got.text);
        assert.match(JSON.parse(got.text).error.message, pattern);
        return got;
    };
    const single = await make({ max_parallel: 1 });
    const first = await open(t, both, { key: single.key });
    assert.ok((await told(single.key, 429, /1 requests open at once/)).headers['retry-after']);
    first.client.close();
    await first.client.closed;
    const again = await open(t, both, { key: single.key });
    again.client.close();
    await again.client.closed;

    const two = [await open(t, both), await open(t, both)];
    await told(CLIENT_KEY, 429, /2 realtime sessions/);
    const third = await open(t, both, { key: single.key });
    await told((await make({})).key, 503, /3 realtime sessions/);
    for (const s of [...two, third]) {
        s.client.close();
        await s.client.closed;
    }

    await told((await make({ models: ['gpt-4o'] })).key, 403, /may not use the model/);
    await told((await make({ rpm: 1, tpm: 100 })).key, 429, /100 per minute/);
    await told((await make({ budget_usd: 0.01 })).key, 429, /may spend/);

    // an answer costs 0.0141: the budget of 0.42 lets one in (0.4096 are set aside for it), and is spent after 30 of them
    const poor = await make({ budget_usd: 0.42 });
    const { client, up } = await open(t, both, { key: poor.key });
    for (let i = 0; i < 29; i++) await answer(client);
    assert.ok((await admin(gw, `/keys/${poor.id}`)).reserved_usd >= 0.4095);
    await answer(client);
    const end = await client.untilClose();
    assert.equal(end.code, 1008);
    assert.match(end.reason, /may spend/);
    assert.equal((await up.closed).code, 1001);
    const row = await line(gw, client);
    assert.deepEqual([row.outcome, row.error, row.tokens_out], ['cut', 'client_limit', 30 * 120]);
    const state = await until(async () => ((k) => k.inflight === 0 && k)(await admin(gw, `/keys/${poor.id}`)), 'the reservation to be settled');
    assert.deepEqual([state.reserved_usd, state.spent_usd], [0, 0.423]);
    await told(poor.key, 429, /may spend/);

    const deleted = await make({});
    const last = await open(t, both, { key: deleted.key });
    await request(gw, { method: 'DELETE', path: `/admin/api/keys/${deleted.id}`, key: SECRET });
    await answer(last.client);
    assert.equal((await last.client.untilClose()).code, 1008);
    assert.deepEqual(fake.problems, []);
});

/** Writes messages of 64 KiB until `drained` has been false for 200 ms: the other side does not read. Returns the bytes written. */
async function pour(write, socket, most) {
    const piece = Buffer.alloc(65536, 1);
    let sent = 0;
    while (sent < most) {
        sent += piece.length;
        if (write(piece)) continue;
        const moved = await Promise.race([new Promise((ok) => socket.once('drain', () => ok(true))), sleep(250, false)]);
        if (!moved) return sent;
    }
    return sent;
}

scenario('a side that does not read holds the other, and nothing is lost', { skip: sanitized && 'memory is not comparable' }, async (t) => {
    const MOST = 256 << 20;
    const both = await start(t, { realtime: { ping: '0' }, fake: { onMessage: () => {} } });
    const { client, up } = await open(t, both);
    const before = both.gw.rssBytes();
    client.socket.pause();
    const sent = await pour((bytes) => up.send(bytes), up.socket, MOST);
    assert.ok(sent < MOST / 2, `the upstream could send ${sent >> 20} MB to a client that does not read`);
    assert.ok(both.gw.rssBytes() - before < 8 << 20, `${(both.gw.rssBytes() - before) >> 20} MB more`);
    client.socket.resume();
    let got = 0;
    while (got < sent) got += (await client.message()).data.length;
    assert.equal(got, sent);

    up.socket.pause();
    const said = await pour((bytes) => client.send(bytes), client.socket, MOST);
    assert.ok(said < MOST / 2, `the client could send ${said >> 20} MB to an upstream that does not read`);
    assert.ok(both.gw.rssBytes() - before < 8 << 20, `${(both.gw.rssBytes() - before) >> 20} MB more`);
    up.socket.resume();
    await until(() => up.messages.reduce((n, m) => n + m.data.length, 0) === said, 'all of it to arrive', 20_000);
    client.close(1000);
    assert.equal((await up.closed).code, 1000);
});

scenario('a message that was passed on holds no memory while nothing follows it', { skip: sanitized && 'memory is not comparable' }, async (t) => {
    const both = await start(t, { fake: { onMessage: () => {} } });
    const { client, up } = await open(t, both);
    const before = both.gw.rssBytes();
    client.send(Buffer.alloc(14 << 20, 1));
    await until(() => up.messages.length === 1, 'it to arrive', 10_000);
    await until(() => both.gw.rssBytes() - before < 8 << 20, 'its memory to be given back', 2000);
});

scenario('clocks: a silent side is pinged, and lost when it does not answer; idle sessions and long ones end', async (t) => {
    const pings = await start(t, { realtime: { ping: '150ms' } });
    const { client, up } = await open(t, pings);
    for (let i = 0; i < 3; i++) {
        const ping = await client.next('a ping');
        assert.equal(ping.op, 9);
        client.send(ping.data, 10);
    }
    assert.ok(up.pings >= 1);
    up.deaf = true;
    const lost = await client.untilClose();
    assert.deepEqual([lost.code, /ping/.test(lost.reason)], [1011, true]);
    const mute = await open(t, pings);
    assert.equal((await mute.client.untilClose()).code, 1011);
    assert.equal((await mute.up.closed).code, 1001);
    const idle = await start(t, { realtime: { idle_timeout: '200ms' } });
    const short = await start(t, { realtime: { max_duration: '200ms' } });
    for (const [both, why] of [
        [idle, /no message/],
        [short, /as long as it may/],
    ]) {
        const session = await open(t, both);
        const end = await session.client.untilClose();
        assert.equal(end.code, 1008);
        assert.match(end.reason, why);
        assert.equal((await line(both.gw, session.client)).outcome, 'cut');
    }
});

scenario('drain: idle sessions are told 1001 at once, busy ones after their answer or at the deadline', async (t) => {
    const both = await start(t, { server: { drain_timeout: '700ms' } });
    const [idle, busy, long] = [await open(t, both), await open(t, both), await open(t, both)];
    for (const s of [busy, long]) {
        s.up.event({ type: 'response.created', response: { id: 'r' } });
        assert.equal((await s.client.message()).json.type, 'response.created');
    }
    both.gw.signal('SIGTERM');
    const end = await idle.client.untilClose();
    assert.deepEqual([end.code, (await idle.up.closed).code], [1001, 1001]);
    busy.up.event({ type: 'response.done', response: { id: 'r', usage: USAGE } });
    assert.equal((await busy.client.message()).json.type, 'response.done');
    assert.equal((await busy.client.untilClose()).code, 1001);
    assert.equal((await long.client.untilClose()).code, 1001);
    assert.equal((await both.gw.waitExit()).code, 0);
    const rows = both.gw.accessLines().filter((l) => l.path === '/v1/realtime');
    assert.deepEqual(rows.map((l) => [l.outcome, l.tokens_out]).sort(), [['cut', null], ['ok', 120], ['ok', null]].sort());
});

scenario('200 sessions at once over two accounts that share nothing', async (t) => {
    const both = await start(t, { fake: { keys: ['sk-up-one', 'sk-up-two'], onMessage: (s, m) => s.send(`${s.key} ${m.data}`) }, realtime: { max_sessions_per_key: 0 } });
    const sessions = await Promise.all(Array.from({ length: 200 }, () => connectRealtime(t, both.gw)));
    assert.ok(sessions.every((c) => c.answer.status === 101));
    assert.deepEqual(new Set(both.fake.sessions.map((s) => s.key)).size, 2);
    await Promise.all(
        sessions.map(async (c, i) => {
            assert.equal((await c.message()).json.type, 'session.created');
            const answers = new Set();
            for (let k = 0; k < 5; k++) {
                c.send(`${i} ${k}`);
                const [key, who, n] = (await c.message()).data.toString().split(' ');
                answers.add(key);
                assert.deepEqual([who, n], [String(i), String(k)]);
            }
            assert.equal(answers.size, 1);
        }),
    );
    assert.equal(new Set(both.fake.sessions.map((s) => s.socket.remotePort)).size, 200);
    for (const c of sessions) c.close(1000);
    await Promise.all(sessions.map((c) => c.closed));
    await until(async () => (await admin(both.gw, '/stats')).streams === 0, 'all to be over');
    assert.deepEqual(both.fake.problems, []);
});
