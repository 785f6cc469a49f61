// HTTP/1.1 as clients, proxies and attackers speak it: framing, pipelining, limits, clocks.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { chat, CLIENT_KEY, makeDir, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat, rawRequest, readChatStream } from '../lib/raw.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const DEMO = { 'provider demo': { type: 'demo' } };

const demo = (t, server = {}, provider = {}) => startGateway(t, { config: { server, 'provider demo': { type: 'demo', ...provider } } });

const textOf = (answer) => JSON.parse(answer.text).choices[0].message.content;

scenario('keep-alive', async (t) => {
    const gw = await demo(t);
    const raw = await connect(t, gw);
    for (let i = 0; i < 5; i++) {
        raw.send(rawChat(chat('demo', `turn ${i}`, { stream: i % 2 === 1 })));
        const head = await raw.head();
        const body = await raw.body(head);
        if (i % 2 === 0) assert.equal(textOf({ text: body.toString() }), `turn ${i}`);
        else assert.equal(readChatStream(body).text, `turn ${i}`);
    }
    raw.send(rawRequest('GET', '/healthz', { headers: ['Connection: close'] }));
    const last = await raw.response();
    assert.equal(last.headers.connection, 'close');
    assert.equal(await raw.closed, 'end');
});

scenario('pipelined requests are answered in order, also behind a stream', async (t) => {
    const gw = await demo(t, {}, { 'x.chunks': 5, 'x.chunk_ms': 30 });
    const raw = await connect(t, gw);
    raw.send(
        rawChat(chat('demo', 'first of all', { stream: true })) +
            rawRequest('GET', '/healthz', { headers: ['X-Request-Id: second'] }) +
            rawChat(chat('demo', 'third')) +
            rawRequest('GET', '/nothing') +
            rawChat(chat('demo', 'and the last', { stream: true })),
    );
    const first = await raw.head();
    assert.equal(readChatStream(await raw.body(first)).text, 'first of all');
    const second = await raw.response();
    assert.equal(second.headers['x-request-id'], 'second');
    assert.equal(textOf(await raw.response()), 'third');
    assert.equal((await raw.response()).status, 404);
    assert.equal(readChatStream(await raw.body(await raw.head())).text, 'and the last');
});

scenario('a hundred pipelined requests', async (t) => {
    const gw = await demo(t);
    const raw = await connect(t, gw);
    raw.send(Array.from({ length: 100 }, (_, i) => rawChat(chat('demo', `n${i}`))).join(''));
    for (let i = 0; i < 100; i++) assert.equal(textOf(await raw.response()), `n${i}`);
});

scenario('a request in pieces of every size', async (t) => {
    const gw = await demo(t);
    const raw = await connect(t, gw);
    for (const size of [1, 7, 64]) {
        await raw.sendPieces(rawChat(chat('demo', `pièces of ${size}`)), size, 0);
        assert.equal(textOf(await raw.response()), `pièces of ${size}`);
    }
});

const chunked = (text, size, extension = '') => {
    let out = '';
    for (let i = 0; i < text.length; i += size) {
        const piece = text.slice(i, i + size);
        out += `${Buffer.byteLength(piece).toString(16)}${extension}\r\n${piece}\r\n`;
    }
    return `${out}0\r\n\r\n`;
};

const CHUNKED_HEAD = rawRequest('POST', '/v1/chat/completions', { headers: ['Content-Type: application/json', 'Transfer-Encoding: chunked'] });

scenario('chunked request bodies', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { ...DEMO, 'provider up': providerFor(fake) } });
    const raw = await connect(t, gw);
    for (const model of ['demo', 'm1'])
        for (const [size, extension] of [
            [1, ''],
            [10, ''],
            [10_000, ''],
            [10, ';ext=1'],
        ]) {
            const text = JSON.stringify(chat(model, `in chunks of ${size}`));
            raw.send(CHUNKED_HEAD + chunked(text, size, extension));
            const answer = await raw.response();
            assert.equal(answer.status, 200, answer.text);
            if (model === 'm1') assert.equal(fake.last.body.toString(), text);
            else assert.equal(textOf(answer), `in chunks of ${size}`);
        }
});

scenario('Expect: 100-continue', async (t) => {
    const gw = await demo(t, { max_body_bytes: '64k' });
    const body = JSON.stringify(chat('demo', 'after the go-ahead'));
    const head = (length) => rawRequest('POST', '/v1/chat/completions', { headers: ['Expect: 100-continue', 'Content-Type: application/json', `Content-Length: ${length}`] });
    const raw = await connect(t, gw);
    for (let i = 0; i < 2; i++) {
        raw.send(head(body.length));
        assert.equal((await raw.head()).status, 100);
        raw.send(body);
        assert.equal(textOf(await raw.response()), 'after the go-ahead');
    }
    raw.send(head(100_000));
    const refused = await raw.response();
    assert.equal(refused.status, 413, 'the body was invited and then refused');
    assert.equal(refused.interim.length, 0);
});

scenario('HEAD has the head of GET and no body', async (t) => {
    const gw = await demo(t);
    const raw = await connect(t, gw);
    for (const path of ['/', '/healthz', '/v1/models', '/api/hello', '/nothing']) {
        raw.send(rawRequest('HEAD', path));
        const answer = await raw.response('HEAD');
        assert.equal(answer.status, path === '/nothing' ? 404 : 200, path);
        raw.send(rawRequest('GET', '/healthz'));
        assert.equal((await raw.response()).status, 200, `bytes followed the head of ${path}`);
    }
});

scenario('HTTP/1.0', async (t) => {
    const gw = await demo(t);
    for (const stream of [false, true]) {
        const raw = await connect(t, gw);
        raw.send(rawChat(chat('demo', 'old but fine', { stream }), { version: '1.0' }));
        const head = await raw.head();
        assert.equal(head.status, 200);
        assert.equal(head.headers['transfer-encoding'], undefined);
        const body = await raw.body(head);
        if (stream) assert.equal(readChatStream(body).text, 'old but fine');
        else assert.equal(textOf({ text: body.toString() }), 'old but fine');
        assert.equal(await raw.closed, 'end');
    }
});

scenario('a body that is too large', async (t) => {
    const gw = await demo(t, { max_body_bytes: '64k' });
    const announced = await connect(t, gw);
    announced.send(rawRequest('POST', '/v1/chat/completions', { headers: ['Content-Length: 65537', 'Content-Type: application/json'] }));
    const at_once = await announced.response();
    assert.equal(at_once.status, 413, 'decided from Content-Length alone');
    assert.equal(JSON.parse(at_once.text).error.type, 'invalid_request_error');
    await announced.closed;

    const counted = await connect(t, gw);
    counted.send(CHUNKED_HEAD);
    const piece = `1000\r\n${'x'.repeat(0x1000)}\r\n`;
    for (let i = 0; i < 20 && !counted.ended; i++) {
        counted.send(piece);
        await sleep(2);
    }
    assert.equal((await counted.response()).status, 413);
    await counted.closed;

    const exact = JSON.stringify(chat('demo', ''));
    const fits = JSON.stringify(chat('demo', 'x'.repeat(65_536 - exact.length)));
    assert.equal((await request(gw, { body: fits })).status, 200, 'the limit itself is allowed');
});

scenario('the 413 reaches a client that goes on sending', async (t) => {
    const gw = await demo(t, { max_body_bytes: '64k' });
    const body = JSON.stringify(chat('demo', 'x'.repeat(3_000_000)));
    const raw = await connect(t, gw);
    raw.send(rawChat(body));
    assert.equal((await raw.response()).status, 413);
});

scenario('a head that is too large', async (t) => {
    const gw = await demo(t, { max_header_bytes: '8k' });
    for (const bytes of [
        rawRequest('GET', '/healthz', { headers: [`X-Long: ${'x'.repeat(9000)}`] }),
        rawRequest('GET', `/healthz?${'x'.repeat(9000)}`),
        rawRequest('GET', '/healthz', { headers: Array.from({ length: 900 }, (_, i) => `X-${i}: 12`) }),
        `GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Endless: ${'x'.repeat(20_000)}`,
    ]) {
        const raw = await connect(t, gw);
        raw.send(bytes);
        assert.equal((await raw.response()).status, 431);
        await raw.closed;
    }
    const raw = await connect(t, gw);
    raw.send(rawRequest('GET', '/healthz', { headers: [`X-Long: ${'x'.repeat(7000)}`] }));
    assert.equal((await raw.response()).status, 200);
    raw.send(rawRequest('GET', '/healthz', { headers: [`X-Long: ${'x'.repeat(7000)}`] }));
    assert.equal((await raw.response()).status, 200, 'the limit counts one head, not the connection');
});

scenario('slow heads, stalled bodies and idle connections', async (t) => {
    const gw = await demo(t, { header_timeout: '1s', body_timeout: '1s', keepalive_timeout: '1s' });
    const ended = async (raw, begin, what) => {
        const answer = await raw.response().catch(() => null);
        await raw.closed;
        const took = performance.now() - begin;
        assert.ok(took > 700 && took < 4000, `${what}: ${took} ms`);
        return answer;
    };
    await Promise.all([
        (async () => {
            const raw = await connect(t, gw);
            const begin = performance.now();
            raw.sendPieces('GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 1, 100);
            assert.equal((await ended(raw, begin, 'a byte now and then'))?.status, 408);
        })(),
        (async () => {
            const raw = await connect(t, gw);
            raw.send(rawRequest('POST', '/v1/chat/completions', { headers: ['Content-Length: 100', 'Content-Type: application/json'] }));
            raw.send('{"model"');
            assert.equal((await ended(raw, performance.now(), 'a stalled body'))?.status, 408);
        })(),
        (async () => {
            const raw = await connect(t, gw);
            raw.send(rawRequest('GET', '/healthz'));
            assert.equal((await raw.response()).status, 200);
            assert.equal(await ended(raw, performance.now(), 'an idle connection'), null, 'no 408 for an idle connection');
        })(),
        (async () => {
            const raw = await connect(t, gw);
            const begin = performance.now();
            await ended(raw, begin, 'a connection that never says anything');
        })(),
    ]);
});

scenario('a body that is slow but alive is waited for', async (t) => {
    const gw = await demo(t, { header_timeout: '1s', body_timeout: '1s' });
    const raw = await connect(t, gw);
    const text = 'slow and steady '.repeat(2000);
    const bytes = rawChat(chat('demo', text));
    const at = bytes.indexOf('\r\n\r\n') + 4;
    raw.send(bytes.slice(0, at));
    await raw.sendPieces(bytes.slice(at), 3000, 200);
    assert.equal(textOf(await raw.response()), text);
});

scenario('framing errors are 400 and the end, never a second response', async (t) => {
    const gw = await demo(t);
    const post = (...lines) => `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${CLIENT_KEY}\r\n${lines.join('\r\n')}\r\n\r\n`;
    const inner = 'GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n';
    for (const [what, bytes] of [
        ['Content-Length with Transfer-Encoding', `${post('Content-Length: 5', 'Transfer-Encoding: chunked')}0\r\n\r\n${inner}`],
        ['two lengths that differ', post('Content-Length: 3', 'Content-Length: 4') + 'abcd' + inner],
        ['a list of lengths', post('Content-Length: 3, 3') + 'abc' + inner],
        ['a signed length', post('Content-Length: +3') + 'abc' + inner],
        ['a negative length', post('Content-Length: -3') + inner],
        ['a hexadecimal length', post('Content-Length: 0x3') + 'abc' + inner],
        ['an empty length', post('Content-Length:') + inner],
        ['a length beyond 64 bits', post('Content-Length: 99999999999999999999') + inner],
        ['an unknown coding', post('Transfer-Encoding: identity') + inner],
        ['space before the colon', post('Content-Length : 3') + 'abc' + inner],
        ['a folded header', `GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n c\r\n\r\n${inner}`],
        ['NUL in a value', `GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: b\0c\r\n\r\n${inner}`],
        ['a bad chunk size', `${post('Transfer-Encoding: chunked')}zz\r\nabc\r\n0\r\n\r\n${inner}`],
        ['a chunk that is longer than it says', `${post('Transfer-Encoding: chunked')}1\r\nabc\r\n0\r\n\r\n${inner}`],
        ['no HTTP at all', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
        ['a request line of another protocol', 'HELO there\r\n\r\n'],
    ]) {
        const raw = await connect(t, gw);
        raw.send(Buffer.from(bytes, 'latin1'));
        const answer = await raw.response().catch((error) => assert.fail(`${what}: ${error.message}`));
        assert.ok(answer.status === 400 || answer.status === 501, `${what}: ${answer.status} ${answer.text}`);
        await Promise.race([raw.closed, sleep(3000).then(() => assert.fail(`${what}: the connection stays open`))]);
        assert.equal(raw.in.length, 0, `${what}: a second response`);
    }
    assert.equal((await request(gw, { path: '/healthz' })).status, 200);
});

scenario('an announced upgrade is not taken', async (t) => {
    const gw = await demo(t);
    const raw = await connect(t, gw);
    raw.send(rawRequest('GET', '/healthz', { headers: ['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA'] }));
    assert.equal((await raw.response()).status, 200);
});

scenario('max_connections: an idle connection makes room for a new one', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, server: { max_connections: 3 } } });
    await sleep(50); // the connection that asked for readiness is gone
    const held = [];
    for (let i = 0; i < 3; i++) {
        const raw = await connect(t, gw);
        raw.send(rawRequest('GET', '/healthz'));
        assert.equal((await raw.response()).status, 200);
        held.push(raw);
    }
    await sleep(1100);
    const newcomer = await connect(t, gw);
    newcomer.send(rawRequest('GET', '/healthz'));
    assert.equal((await newcomer.response()).status, 200);
    await held[0].closed; // the one without a request for longest
    held[1].send(rawRequest('GET', '/healthz'));
    assert.equal((await held[1].response()).status, 200);
});

scenario('a unix socket listener beside TCP', async (t) => {
    const path = `${makeDir()}/chatmux.sock`;
    const listen = (gw) => ({ ...DEMO, server: { listen: [`127.0.0.1:${gw.port}`, `unix:${path}`] } });
    const gw = await startGateway(t, { config: listen });
    for (const socketPath of [path, undefined]) {
        assert.equal(textOf(await request(gw, { socketPath, body: chat('demo', 'over a path') })), 'over a path');
        const stream = await request(gw, { socketPath, body: chat('demo', 'over a path', { stream: true }) });
        assert.equal(readChatStream(stream.bytes).text, 'over a path');
    }
    await gw.kill();
    const again = await startGateway(t, { config: listen });
    assert.equal((await request(again, { socketPath: path, path: '/healthz' })).status, 200, 'a path that a killed process left over is taken again');
    await again.stop();
    assert.ok(!existsSync(path), 'the path is removed at the end');
});

scenario('an upload that the upstream does not take stops the client, not the gateway', async (t) => {
    const fake = await startFakeOpenai(t, { readBody: false });
    const gw = await startGateway(t, { config: { ...DEMO, 'provider up': providerFor(fake) } });
    const before = gw.sockets();
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1', 'x'.repeat(8_000_000))));
    await until(() => fake.requests.length === 1, 'the upload to begin');
    const begin = performance.now();
    assert.equal((await request(gw, { body: chat('demo') })).status, 200);
    assert.ok(performance.now() - begin < 500);
    raw.close();
    // The fake does not read, so it cannot see the connection end: the gateway's own sockets tell.
    await until(() => gw.sockets() <= before, 'the upload to end with its client', 1500);
});

scenario('an answer that comes before the upload is done', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'], strict: false });
    const gw = await startGateway(t, {
        config: { retry: { retries: 0 }, 'provider up': { type: 'openai', base_url: fake.base, credentials: ['sk-not-known'], models: ['m1'] } },
    });
    const answer = await request(gw, { body: chat('m1', 'x'.repeat(4_000_000)) });
    assert.equal(answer.status, 502, answer.text);
    assert.equal(answer.error.code, 'upstream_auth');
});

scenario('CORS: preflight without a key, errors with the headers', async (t) => {
    const gw = await demo(t, { cors_origins: ['https://app.example'] });
    const headers = { origin: 'https://app.example', 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type,x-stainless-os' };
    const preflight = await request(gw, { method: 'OPTIONS', path: '/v1/chat/completions', key: null, headers });
    assert.ok([200, 204].includes(preflight.status), preflight.text);
    assert.equal(preflight.headers['access-control-allow-origin'], 'https://app.example');
    assert.match(preflight.headers['access-control-allow-headers'], /x-stainless-os/i);
    const wrong = await request(gw, { body: chat('demo'), key: 'sk-wrong', headers: { origin: 'https://app.example' } });
    assert.equal(wrong.status, 401);
    assert.equal(wrong.headers['access-control-allow-origin'], 'https://app.example');
    const other = await request(gw, { body: chat('demo'), headers: { origin: 'https://other.example' } });
    assert.equal(other.headers['access-control-allow-origin'], undefined);
    const plain = await demo(t);
    assert.equal((await request(plain, { body: chat('demo'), headers: { origin: 'https://app.example' } })).headers['access-control-allow-origin'], undefined);
});
