// What clients get wrong, or do in odd but proper ways: handshakes and frames of /v1/realtime, byte by byte.
import assert from 'node:assert/strict';
import { startFakeRealtime } from '../lib/fake_realtime.mjs';
import { CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { BINARY, Client, CLOSE, closePayload, connectRealtime, frame, PING, PONG, TEXT } from '../lib/websocket.mjs';

const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
const masked = (op, payload, options = {}) => frame(op, payload, { mask: MASK, ...options });

async function start(t, config = {}) {
    const fake = await startFakeRealtime(t, { onSession: () => {}, onMessage: (s, m) => s.send(m.binary ? m.data : m.data.toString()) });
    const gw = await startGateway(t, { config: { 'provider up': fake.provider(), realtime: { max_message: '256k' }, ...config } });
    return { fake, gw };
}

async function open(t, { fake, gw }, options) {
    const client = await connectRealtime(t, gw, options);
    assert.equal(client.answer.status, 101, client.answer.text);
    return { client, up: fake.sessions.at(-1) };
}

scenario('handshakes that are none, or not ours', async (t) => {
    const { fake, gw } = await start(t, { 'provider chat': { type: 'demo' } });
    const cases = [
        ['no key', { key: null }, 401, 'invalid_api_key'],
        ['a wrong key', { key: 'sk-wrong' }, 401, 'invalid_api_key'],
        ['a wrong key as a subprotocol', { key: null, protocols: ['realtime', 'openai-insecure-api-key.sk-wrong'] }, 401, 'invalid_api_key'],
        ['an unknown model', { path: '/v1/realtime?model=nobody' }, 404, 'model_not_found'],
        ['a model that cannot', { path: '/v1/realtime?model=demo' }, 404, 'model_not_found'],
        ['no model', { path: '/v1/realtime' }, 400, null, 'model'],
        ['an empty model', { path: '/v1/realtime?model=' }, 400, null, 'model'],
        ['two models', { path: '/v1/realtime?model=gpt-realtime&model=b' }, 400, null, 'model'],
        ['a call of somebody', { path: '/v1/realtime?call_id=rtc_1' }, 400, null, 'call_id'],
        ['no upgrade', { headers: { Upgrade: null } }, 426, null],
        ['another upgrade', { headers: { Upgrade: 'h2c' } }, 426, null],
        ['no connection: upgrade', { headers: { Connection: 'keep-alive' } }, 426, null],
        ['another version', { headers: { 'Sec-WebSocket-Version': '8' } }, 426, null],
        ['no version', { headers: { 'Sec-WebSocket-Version': null } }, 426, null],
        ['no nonce', { headers: { 'Sec-WebSocket-Key': null } }, 400, null],
        ['a short nonce', { headers: { 'Sec-WebSocket-Key': 'AAAA' } }, 400, null],
        ['HTTP/1.0', { version: 'HTTP/1.0' }, 400, null],
        ['a body', { headers: { 'Content-Length': '3' }, behind: Buffer.from('abc') }, 400, null],
        ['POST', { method: 'POST', headers: { 'Content-Length': '0' } }, 405, 'method_not_supported'],
        ['client secrets', { path: '/v1/realtime/client_secrets', method: 'POST', headers: { 'Content-Length': '0' } }, 404, null],
    ];
    for (const [name, options, status, code, param] of cases) {
        const { answer } = await connectRealtime(t, gw, options);
        const { error } = JSON.parse(answer.text);
        assert.equal(answer.status, status, `${name}: ${answer.text}`);
        assert.equal(error.code, code, name);
        if (param) assert.equal(error.param, param, name);
        if (status === 426) assert.deepEqual([answer.headers['sec-websocket-version'], answer.headers.upgrade], ['13', 'websocket'], name);
    }
    assert.equal((await request(gw, { path: '/v1/realtime?model=gpt-realtime' })).status, 426);
    // odd, but fine
    for (const options of [
        { headers: { Connection: 'keep-alive, Upgrade', Upgrade: 'WebSocket' } },
        { path: '/realtime?model=gpt-realtime' },
        { path: '//v1/v1/realtime/?model=gpt-realtime' },
        { headers: { Origin: 'https://anywhere.example' } },
    ])
        await open(t, { fake, gw }, options);
    const keyless = await startGateway(t, { config: { auth: { keys: null }, 'provider up': fake.provider() } });
    assert.equal((await connectRealtime(t, keyless, { key: null, headers: { Origin: 'https://evil.example' } })).answer.status, 403);
    await open(t, { fake, gw: keyless }, { key: null });
    assert.deepEqual(fake.problems, []);
});

scenario('frames that are proper: in pieces, between each other, in every form of length', async (t) => {
    const both = await start(t);
    const { client, up } = await open(t, both, { behind: masked(TEXT, 'before the 101') });
    assert.equal((await client.message()).data.toString(), 'before the 101');
    const expect = async (op, text) => {
        const got = await client.next(text);
        assert.deepEqual([got.op, got.fin, got.data.toString()], [op, true, text]);
    };
    client.raw(Buffer.concat([masked(TEXT, 'Gr', { fin: false }), masked(PING, 'in between'), masked(0, Buffer.from([0xc3]), { fin: false }), masked(PONG, 'unasked'), masked(0, '', { fin: false }), masked(0, Buffer.concat([Buffer.from([0xbc]), Buffer.from('ße')]))]));
    await expect(PONG, 'in between');
    await expect(TEXT, 'Grüße');
    for (const n of [0, 1, 125, 126, 127, 65535, 65536]) {
        client.send(Buffer.alloc(n, n & 255));
        const got = await client.next(`${n} bytes`);
        assert.equal(got.op === BINARY && got.data.length === n && got.data.every((b) => b === (n & 255)), true, `${n} bytes`);
    }
    client.raw(Buffer.concat([masked(TEXT, 'long form', { form: 126 }), masked(TEXT, 'longest form', { form: 127 }), masked(TEXT, '')]));
    await expect(TEXT, 'long form');
    await expect(TEXT, 'longest form');
    await expect(TEXT, '');
    client.raw(masked(PING, 'x'.repeat(125)));
    await expect(PONG, 'x'.repeat(125));
    for (const byte of masked(TEXT, 'byte by '.repeat(20))) {
        client.raw(Buffer.from([byte]));
        await new Promise(setImmediate);
    }
    await expect(TEXT, 'byte by '.repeat(20));
    client.raw(Buffer.concat([...Array.from({ length: 200 }, (_, i) => masked(TEXT, `${i}`, { fin: false }).fill(i ? 0 : 1, 0, 1)), masked(0, 'end')]));
    await expect(TEXT, Array.from({ length: 200 }, (_, i) => `${i}`).join('') + 'end');
    assert.deepEqual(both.fake.problems, []);
    assert.equal(up.messages.every((m) => m.data.length >= 0), true);
});

const BROKEN = [
    ['no mask', frame(TEXT, 'x'), 1002],
    ['a reserved bit', masked(TEXT, 'x', { rsv: 4 }), 1002],
    ['a reserved bit of a ping', masked(PING, '', { rsv: 1 }), 1002],
    ['an unknown kind', masked(3, 'x'), 1002],
    ['an unknown control frame', masked(11, ''), 1002],
    ['a ping in pieces', masked(PING, 'x', { fin: false }), 1002],
    ['a long ping', masked(PING, 'x'.repeat(126)), 1002],
    ['a ping of the long form', masked(PING, 'x', { form: 126 }), 1002],
    ['a continuation of nothing', masked(0, 'x'), 1002],
    ['a message within a message', Buffer.concat([masked(TEXT, 'a', { fin: false }), masked(TEXT, 'b')]), 1002],
    ['half a close code', masked(CLOSE, Buffer.from([3])), 1002],
    ...[0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535].map((code) => [`close code ${code}`, masked(CLOSE, closePayload(code)), 1002]),
    ['a close reason that is no UTF-8', masked(CLOSE, Buffer.concat([closePayload(1000), Buffer.from([0xff])])), 1007],
    ['text that is no UTF-8', masked(TEXT, Buffer.from([0xc3, 0x28])), 1007],
    ['a surrogate', masked(TEXT, Buffer.from([0xed, 0xa0, 0x80])), 1007],
    ['half a character at the end', Buffer.concat([masked(TEXT, 'a', { fin: false }), masked(0, Buffer.from([0xe2, 0x82]))]), 1007],
    ['too large', masked(BINARY, Buffer.alloc((256 << 10) + 1)), 1009],
    ['too large by its head', Buffer.concat([Buffer.from([0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0]), MASK]), 1009],
    ['a length of 2^63', Buffer.concat([Buffer.from([0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), MASK]), 1009],
    ['too large in pieces', Buffer.concat([masked(BINARY, Buffer.alloc(200 << 10), { fin: false }), masked(0, Buffer.alloc(100 << 10))]), 1009],
];

scenario('frames that are broken: the client is told by a close code, the upstream that it is over', async (t) => {
    const both = await start(t);
    await Promise.all(
        BROKEN.map(async ([name, bytes, code]) => {
            const client = await connectRealtime(t, both.gw);
            assert.equal(client.answer.status, 101);
            client.raw(masked(TEXT, `first ${name}`));
            assert.equal((await client.message()).data.toString(), `first ${name}`);
            client.raw(Buffer.concat([bytes, masked(TEXT, 'after it')]));
            const end = await client.untilClose();
            assert.deepEqual([end.op, end.code], [CLOSE, code], name);
            await client.closed;
            const up = both.fake.sessions.find((s) => s.messages[0]?.data.toString() === `first ${name}`);
            assert.equal((await up.closed).code, 1001, name);
            assert.equal(up.messages.length, 1, name);
            const row = await both.gw.accessLine(client.answer.headers['x-request-id']);
            assert.deepEqual([row.outcome, row.error], ['cut', code === 1009 ? 'too_large' : 'bad_request'], name);
        }),
    );
    assert.deepEqual(both.fake.problems, []);
    assert.equal((await both.gw.metrics()).get('chatmux_attempts_total{provider="up",class="ok"}'), BROKEN.length); // no account is blamed
});

scenario('closing: codes that may stand in a frame, either way; nothing is sent after', async (t) => {
    const both = await start(t);
    for (const code of [undefined, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]) {
        const { client, up } = await open(t, both);
        client.raw(Buffer.concat([masked(CLOSE, closePayload(code, code ? 'x'.repeat(123) : '')), masked(TEXT, 'after it'), masked(PING, '')]));
        const end = await client.next('the close frame');
        assert.deepEqual([end.op, end.code], [CLOSE, code]);
        assert.deepEqual(await client.next('the end'), { end: true });
        assert.deepEqual(await up.closed, code ? { code, reason: 'x'.repeat(123) } : {});
        assert.equal(up.messages.length, 0);
    }
    // both at once
    const { client, up } = await open(t, both);
    up.close(4001, 'up');
    client.close(4002, 'down');
    const end = await client.untilClose();
    assert.ok([4001, 4002].includes(end.code));
    await client.closed;
    await up.gone;
    // a client that does not answer our close frame is left after a while
    const deaf = await open(t, both);
    deaf.up.close(4003);
    assert.equal((await deaf.client.untilClose()).code, 4003);
    await deaf.client.closed;
});

scenario('a connection that was kept alive opens a session; the head may come in pieces', async (t) => {
    const { fake, gw } = await start(t);
    const c = new Client(gw, { path: '/healthz', headers: { Connection: 'keep-alive', Upgrade: null } });
    assert.equal((await c.answered).status, 200);
    const next = new Client(gw);
    await next.answered;
    c.head = Buffer.alloc(0);
    c.answer = null;
    const answered = new Promise((ok) => (c.gotAnswer = ok));
    const head = `GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${c.nonce}\r\nAuthorization: Bearer ${CLIENT_KEY}\r\n\r\n`;
    for (const piece of head.match(/[^]{1,20}/g)) {
        c.raw(Buffer.from(piece));
        await new Promise(setImmediate);
    }
    assert.equal((await answered).status, 101);
    c.send('hello');
    assert.equal((await c.message()).data.toString(), 'hello');
    c.socket.destroy();
    next.socket.destroy();
    assert.deepEqual(fake.problems, []);
});
