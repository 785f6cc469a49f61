// A failure costs an attempt, not the answer: what moves on to the next credential or target, what stops, what the
// client is told when nothing is left, and what becomes of the credential.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { chat, CLIENT_KEY, freePort, request, scenario, startGateway } from '../lib/gateway.mjs';
import { connect, rawChat, readChatStream } from '../lib/raw.mjs';
import { errorBody, play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const NO_RETRY = { retry: { retries: 0 } };

async function pair(t, { keys = ['sk-up-1', 'sk-up-2', 'sk-up-3'], provider, config = NO_RETRY } = {}) {
    const fake = await startFakeOpenai(t, { keys });
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake, provider), ...config } });
    return { fake, gw };
}

const answersWith = (answer, text = 'Hello from upstream.') => {
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.json.choices[0].message.content, text);
};

const BEFORE_THE_ANSWER = {
    '401': play.badKey(),
    '403 for this account': play.error(403, 'Project does not have access to model', { code: 'model_not_found' }),
    '404 model_not_found': play.error(404, 'The model does not exist', { code: 'model_not_found', param: 'model' }),
    '429': play.rateLimited(30),
    '429 without a time': play.rateLimited(),
    'no quota left': play.error(429, 'You exceeded your current quota', { type: 'insufficient_quota', code: 'insufficient_quota' }),
    '500': play.error(500, 'oops', { type: 'server_error' }),
    '502 with HTML': play.html(502),
    '503': play.error(503, 'overloaded', { type: 'server_error' }),
    '200 with HTML': play.html(200),
    '200 with an error inside': play.errorIn200(),
    '200 that cannot be read': play.unreadable(),
    '200 with an empty body': play.status(200, ''),
    'an error as text': play.status(500, 'upstream connect error'),
    'garbage instead of HTTP': play.garbage(),
    'closed before the head': play.cutBeforeHead(),
    'reset before the head': play.resetBeforeHead(),
    'a body that ends too early': play.cutBody(),
};

for (const [what, behave] of Object.entries(BEFORE_THE_ANSWER))
    scenario(`${what}: the next credential answers`, async (t) => {
        for (const stream of [false, true]) {
            // Connections of their own: on one that had served before, a close without an answer may mean that it was stale,
            // and the same request may be repeated on a new one.
            const { fake, gw } = await pair(t);
            if (stream && ['a body that ends too early'].includes(what)) continue; // the streamed form has tests of its own
            fake.next(behave);
            const { length } = fake.requests;
            const answer = await request(gw, { body: chat('m1', 'x', { stream }) });
            assert.equal(answer.status, 200, answer.text);
            assert.equal(answer.headers['x-chatmux-attempts'], '2', `stream: ${stream}`);
            if (stream) assert.ok(readChatStream(answer.bytes).done);
            else answersWith(answer);
            const [first, second] = fake.requests.slice(length);
            assert.notEqual(first.key, second.key, 'the same credential was tried twice');
            assert.ok(!answer.text.includes('sk-up'));
        }
    });

scenario('an error event first in a stream: the next credential answers', async (t) => {
    const { fake, gw } = await pair(t);
    for (const behave of [play.errorEvent(), play.cutMidStream({ pieces: [] }), play.cutMidStream({ pieces: [], how: 'end' }), play.cutMidStream({ pieces: [], how: 'reset' })]) {
        fake.next(behave);
        const answer = await request(gw, { body: chat('m1', 'x', { stream: true }) });
        assert.equal(answer.status, 200, answer.text);
        assert.equal(readChatStream(answer.bytes).text, 'Hello from upstream.');
        assert.equal(answer.headers['x-chatmux-attempts'], '2');
    }
});

scenario('the SDK sees one plain answer when the first credential is refused', async (t) => {
    const { fake, gw } = await pair(t);
    fake.next(play.badKey());
    const sdk = new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 });
    const { data, response } = await sdk.chat.completions.create({ model: 'm1', messages: [{ role: 'user', content: 'x' }] }).withResponse();
    assert.equal(data.choices[0].message.content, 'Hello from upstream.');
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('x-chatmux-attempts'), '2');
});

scenario('a refused credential is not used again', async (t) => {
    const { fake, gw } = await pair(t);
    fake.key('sk-up-2', play.badKey());
    for (let i = 0; i < 9; i++) answersWith(await request(gw, { body: chat('m1') }));
    assert.equal(fake.requests.filter((rec) => rec.key === 'sk-up-2').length, 1);
    assert.ok(gw.logLines().some((line) => ['warn', 'error'].includes(line.level)), 'the operator is told');
    assert.ok(!gw.output.includes('sk-up-2'), 'not by its secret');
});

scenario('a limited credential rests for the time it was told', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1', 'sk-up-2'], config: { retry: { retries: 0, max_wait: '0' } } });
    fake.next(play.rateLimited(2));
    answersWith(await request(gw, { body: chat('m1') }));
    const limited = fake.requests[0].key;
    for (let i = 0; i < 4; i++) answersWith(await request(gw, { body: chat('m1') }));
    assert.equal(fake.requests.filter((rec) => rec.key === limited).length, 1);
    await new Promise((done) => setTimeout(done, 2300));
    for (let i = 0; i < 4; i++) answersWith(await request(gw, { body: chat('m1') }));
    assert.ok(fake.requests.filter((rec) => rec.key === limited).length > 1, 'it came back');
});

scenario('role, comments and pings for three seconds, then an error: only the second answer is seen', async (t) => {
    const { fake, gw } = await pair(t);
    fake.next(play.chatterThenError({ ms: 3000 }));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    const head = await raw.head();
    assert.equal(head.status, 200);
    assert.equal(head.headers['x-chatmux-attempts'], '2');
    const { bytes, clean } = await raw.drainStream();
    assert.ok(clean);
    const got = readChatStream(bytes);
    assert.equal(got.text, 'Hello from upstream.');
    assert.equal(new Set(got.chunks.map((chunk) => chunk.id)).size, 1, 'chunks of two answers');
    assert.equal(got.chunks.filter((chunk) => chunk.choices[0].delta.role).length, 1);
    assert.ok(got.done);
});

scenario('chatter does not stop the clock of the first token', async (t) => {
    const { fake, gw } = await pair(t, { provider: { first_token_timeout: '1s' } });
    fake.next(play.chatterThenError({ ms: 8000 }));
    const begin = performance.now();
    const answer = await request(gw, { body: chat('m1', 'x', { stream: true }) });
    assert.equal(readChatStream(answer.bytes).text, 'Hello from upstream.');
    const took = performance.now() - begin;
    assert.ok(took > 900 && took < 4000, `${took} ms`);
    assert.equal(fake.requests[0].isGone, true, 'the slow attempt was closed');
});

scenario('each clock ends a silent attempt', async (t) => {
    const { fake, gw } = await pair(t, { provider: { first_token_timeout: '700ms', response_timeout: '700ms' } });
    for (const [stream, behave] of [
        [true, play.hang()],
        [true, play.hangAfterHead()],
        [false, play.hang()],
    ]) {
        fake.next(behave);
        const answer = await request(gw, { body: chat('m1', 'x', { stream }) });
        assert.equal(answer.status, 200, answer.text);
        assert.equal(answer.headers['x-chatmux-attempts'], '2', `${behave} stream: ${stream}`);
    }
});

scenario('a request that is itself wrong is tried once', async (t) => {
    const { fake, gw } = await pair(t);
    for (const [status, fields, message] of [
        [400, { code: 'unknown_parameter', param: 'messages[0].nam' }, "Unknown parameter: 'messages[0].nam'."],
        [400, { code: 'context_length_exceeded', param: 'messages' }, "This model's maximum context length is 8192 tokens."],
        [422, { code: null, param: 'tools' }, 'cannot do that'],
        [413, {}, 'too large'],
    ]) {
        for (const stream of [false, true]) {
            fake.next(play.error(status, message, fields));
            const { length } = fake.requests;
            const answer = await request(gw, { body: chat('m1', 'x', { stream }) });
            assert.equal(answer.status, status, answer.text);
            assert.equal(answer.error.code, fields.code ?? null);
            assert.equal(answer.error.param, fields.param ?? null);
            assert.ok(answer.error.message.includes(message), answer.error.message);
            assert.equal(fake.requests.length, length + 1);
        }
    }
    answersWith(await request(gw, { body: chat('m1') }));
});

scenario('all limited: 429, with the time when the first returns', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1', 'sk-up-2'] });
    fake.key('sk-up-1', play.rateLimited(45));
    fake.key('sk-up-2', play.rateLimited(30));
    for (let round = 0; round < 2; round++) {
        const answer = await request(gw, { body: chat('m1') });
        assert.equal(answer.status, 429, answer.text);
        assert.equal(answer.error.code, 'rate_limit_exceeded');
        const wait = Number(answer.headers['retry-after']);
        assert.ok(wait >= 25 && wait <= 31, `retry-after: ${answer.headers['retry-after']}`);
        assert.notEqual(answer.headers['x-should-retry'], 'false', 'one returns within the minute');
        assert.equal(fake.requests.length, 2, 'the second round asked a cooling credential');
    }
});

scenario('all limited for long: x-should-retry is false', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1', 'sk-up-2'] });
    fake.always(play.rateLimited(600));
    for (const stream of [false, true]) {
        const answer = await request(gw, { body: chat('m1', 'x', { stream }) });
        assert.equal(answer.status, 429, answer.text);
        assert.equal(answer.headers['x-should-retry'], 'false');
        assert.ok(Number(answer.headers['retry-after']) >= 500, `retry-after: ${answer.headers['retry-after']}`);
    }
    const sdk = new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 2 });
    const begin = performance.now();
    await assert.rejects(sdk.chat.completions.create({ model: 'm1', messages: [{ role: 'user', content: 'x' }] }), OpenAI.RateLimitError);
    assert.ok(performance.now() - begin < 1000, 'the SDK repeated the call');
});

scenario('the only credential limited: the time the upstream told reaches the client', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1'] });
    fake.always(play.rateLimited(17));
    const answer = await request(gw, { body: chat('m1') });
    assert.equal(answer.status, 429);
    const wait = Number(answer.headers['retry-after']);
    assert.ok(wait >= 15 && wait <= 17, `retry-after: ${answer.headers['retry-after']}`);
});

scenario('a cooldown that ends within max_wait is waited for', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1'], config: { retry: { retries: 0, max_wait: '5s' } } });
    fake.next(play.rateLimited(1));
    const begin = performance.now();
    const answer = await request(gw, { body: chat('m1') });
    answersWith(answer);
    const took = performance.now() - begin;
    assert.ok(took >= 900 && took < 5000, `${took} ms`);
});

scenario('two attempts of one account begin min_interval apart', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1'], provider: { min_interval: '300ms' } });
    for (const answer of await Promise.all([1, 2, 3].map(() => request(gw, { body: chat('m1') })))) answersWith(answer);
    const at = fake.requests.map((r) => r.at);
    assert.equal(at.length, 3);
    for (const i of [1, 2]) assert.ok(at[i] - at[i - 1] >= 280, `${at[i] - at[i - 1]} ms`); // the fake's clock begins when it has read the request
});

scenario('what the client is told when every attempt failed', async (t) => {
    for (const [what, behave, status, code] of [
        ['refused', play.badKey(), 502, 'upstream_auth'],
        ['down', play.error(500, 'The server had an error', { type: 'server_error' }), 502, 'upstream_error'],
        ['overloaded', play.error(503, 'overloaded', { type: 'server_error' }), 503, 'overloaded'],
        ['HTML', play.html(), 502, 'upstream_error'],
        ['unreadable', play.unreadable(), 502, 'upstream_error'],
        ['cut', play.cutBeforeHead(), 502, null],
        ['no model', play.error(404, 'no such model', { code: 'model_not_found' }), 404, 'model_not_found'],
    ]) {
        const fake = await startFakeOpenai(t, { keys: ['sk-up-1', 'sk-up-2'] });
        const gw = await startGateway(t, { name: what, config: { 'provider up': providerFor(fake), ...NO_RETRY } });
        fake.always(behave);
        for (const stream of [false, true]) {
            if (stream && what !== 'down' && what !== 'HTML') continue;
            const answer = await request(gw, { body: chat('m1', 'x', { stream }) });
            assert.equal(answer.status, status, `${what}: ${answer.text}`);
            const { error } = answer;
            if (code !== null) assert.equal(error.code, code, what);
            assert.ok(error.message.length > 10, `${what}: ${error.message}`);
            assert.ok(answer.headers['x-request-id']);
            assert.ok(!answer.text.includes('sk-up'), 'a secret in an error text');
            assert.ok(!/<html/i.test(answer.text));
        }
    }
});

scenario('out of quota everywhere', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1'] });
    fake.always(play.error(429, 'You exceeded your current quota', { type: 'insufficient_quota', code: 'insufficient_quota' }));
    const answer = await request(gw, { body: chat('m1') });
    assert.ok([402, 429, 503].includes(answer.status), `${answer.status} ${answer.text}`);
    assert.equal(answer.error.code, 'insufficient_quota');
    assert.equal(answer.headers['x-should-retry'], 'false');
});

scenario('nobody listens there', async (t) => {
    const port = await freePort();
    const gw = await startGateway(t, {
        config: { ...NO_RETRY, 'provider up': { type: 'openai', base_url: `http://127.0.0.1:${port}/v1`, credentials: ['sk-up-1'], models: ['m1'] } },
    });
    const answer = await request(gw, { body: chat('m1') });
    assert.equal(answer.status, 502, answer.text);
    assert.ok(answer.error.message);
    assert.ok(!answer.text.includes('sk-up'));
});

scenario('five dead credentials do not hide a healthy one', async (t) => {
    const keys = ['sk-a', 'sk-b', 'sk-c', 'sk-d', 'sk-e', 'sk-good'];
    const fake = await startFakeOpenai(t, { keys });
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake), ...NO_RETRY } });
    for (const key of keys.slice(0, 5)) fake.key(key, play.badKey());
    const begin = performance.now();
    for (let i = 0; i < 3; i++) answersWith(await request(gw, { body: chat('m1') }));
    assert.ok(performance.now() - begin < 2000, 'there is no waiting between credentials');
});

scenario('retry.credentials bounds how many are tried', async (t) => {
    const { fake, gw } = await pair(t, { config: { retry: { retries: 0, credentials: 2 } } });
    fake.always(play.badKey());
    assert.equal((await request(gw, { body: chat('m1') })).status, 502);
    assert.equal(fake.requests.length, 2);
});

scenario('the only credential is tried again with back-off when its server stumbles', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1'], config: { retry: { retries: 2 } } });
    fake.next(play.error(502, 'bad gateway', { type: 'server_error' }), play.html(504));
    const answer = await request(gw, { body: chat('m1') });
    answersWith(answer);
    assert.equal(answer.headers['x-chatmux-attempts'], '3');
    assert.equal(fake.requests.length, 3);
});

const BUSY = (retryAfter) => play.error(503, 'busy', { type: 'server_error' }, retryAfter ? { 'retry-after': String(retryAfter) } : {});

for (const behave of [BUSY(2), play.error(502, 'bad gateway', { type: 'server_error' }, { 'retry-after': '2' })])
    scenario('a server that tells when to come back is not asked before', async (t) => {
        const { fake, gw } = await pair(t, { keys: ['sk-up-1'], config: { retry: { retries: 1 } } });
        fake.next(behave);
        const began = performance.now();
        const answer = await request(gw, { body: chat('m1') });
        const took = performance.now() - began;
        answersWith(answer);
        assert.equal(answer.headers['x-chatmux-attempts'], '2');
        assert.ok(took >= 1990 && took < 6000, `${took} ms`);
    });

scenario('nor does a later failure that tells no time make it earlier', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1', 'sk-up-2'], config: { retry: { retries: 1 } } });
    fake.next(BUSY(2), BUSY());
    const began = performance.now();
    answersWith(await request(gw, { body: chat('m1') }));
    assert.ok(performance.now() - began >= 1990, 'not asked before');
    assert.equal(fake.requests.length, 3);
});

scenario('a server that wants to be left alone for longer than anybody waits is asked once', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1'], config: { retry: { retries: 2, max_wait: '10s' } } });
    fake.always(BUSY(100));
    const began = performance.now();
    for (const stream of [false, true]) {
        const answer = await request(gw, { body: chat('m1', 'x', { stream }) });
        assert.equal(answer.status, 503, answer.text);
        assert.equal(answer.headers['retry-after'], '100');
    }
    assert.equal(fake.requests.length, 2, 'once for each');
    assert.ok(performance.now() - began < 2000);
});

scenario('and the next target answers instead of it', async (t) => {
    const busy = await startFakeOpenai(t, { keys: ['sk-up-1'] }),
        good = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, {
        config: { 'provider busy': providerFor(busy), 'provider good': providerFor(good), 'model best': { targets: ['busy/m1', 'good/m1'], strategy: 'priority' }, retry: { retries: 2 } },
    });
    busy.always(BUSY(100));
    good.next(BUSY());
    const began = performance.now();
    answersWith(await request(gw, { body: chat('best') }));
    assert.ok(performance.now() - began < 3000, 'the time of one target is not that of another');
    assert.equal(busy.requests.length, 1);
    assert.equal(good.requests.length, 2);
});

scenario('an upstream connection that died in the pool is not the client’s problem', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1'] });
    answersWith(await request(gw, { body: chat('m1') }));
    for (const socket of fake.sockets) socket.destroy();
    answersWith(await request(gw, { body: chat('m1') }));
});

scenario('text of the upstream is data: in errors and in the log', async (t) => {
    const { fake, gw } = await pair(t, { keys: ['sk-up-1'] });
    fake.always(play.status(400, errorBody('line one\r\nX-Injected: yes\u001b[31m \u2028 "quoted" \u0000 end'), { 'content-type': 'application/json' }));
    const answer = await request(gw, { body: chat('m1') });
    assert.equal(answer.status, 400);
    assert.equal(answer.headers['x-injected'], undefined);
    assert.ok(answer.error.message.includes('line one'));
    assert.ok(!/[\u001b\u0000]/.test(gw.output), 'control characters in the log');
});
