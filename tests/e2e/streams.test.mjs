// Streams: one write per event, nothing held back, nothing made up, nobody's memory but a bounded part of ours.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { chat, CLIENT_KEY, request, sanitized, scenario, startGateway, tcpQueues, until } from '../lib/gateway.mjs';
import { connect, parseSse, rawChat, readChatStream } from '../lib/raw.mjs';
import { play, providerFor, startFakeOpenai, takenBytes } from '../lib/fake_openai.mjs';
import { say, startFakeHix } from '../lib/fake_hix.mjs';

const sdkFor = (gw) => new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 });

async function relay(t, { fake: fakeOptions, provider, config } = {}) {
    const fake = await startFakeOpenai(t, fakeOptions);
    const gw = await startGateway(t, { config: { retry: { retries: 0 }, 'provider up': providerFor(fake, provider), ...config } });
    return { fake, gw };
}

/** Reads deltas and confirms each; a gateway that holds one back makes this time out. */
async function inLockstep(gw, model, pieces, confirm) {
    const seen = [];
    for await (const chunk of await sdkFor(gw).chat.completions.create({ model, messages: [{ role: 'user', content: 'x' }], stream: true }, { timeout: 10_000 })) {
        const text = chunk.choices[0]?.delta.content;
        if (!text) continue;
        seen.push(text);
        confirm();
    }
    assert.deepEqual(seen, pieces);
}

const PIECES = Array.from({ length: 25 }, (_, i) => `piece ${i} é世🌍 `);

scenario('delta n+1 is sent only after the client confirmed delta n: relay', async (t) => {
    const { fake, gw } = await relay(t);
    const behave = play.lockstep(PIECES);
    fake.always(behave);
    await inLockstep(gw, 'm1', PIECES, behave.confirm);
});

for (const framing of ['data', 'events'])
    scenario(`delta n+1 is sent only after the client confirmed delta n: hix, ${framing} framing`, async (t) => {
        const fake = await startFakeHix(t, { framing });
        const gw = await startGateway(t, { config: { 'provider hix': { type: 'hix', base_url: fake.base, credentials: fake.sessions } } });
        const behave = say.lockstep(PIECES);
        fake.always(behave);
        await inLockstep(gw, 'hix/deepseek-v3', PIECES, behave.confirm);
    });

scenario('each delta of the demo comes alone and in time', async (t) => {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo', 'x.chunks': 8, 'x.chunk_ms': 60 } } });
    const times = [];
    const text = 'word '.repeat(40);
    for await (const chunk of await sdkFor(gw).chat.completions.create({ model: 'demo', messages: [{ role: 'user', content: text }], stream: true }))
        if (chunk.choices[0].delta.content) times.push(performance.now());
    assert.equal(times.length, 8);
    const gaps = times.slice(1).map((time, i) => time - times[i]);
    assert.ok(gaps.every((gap) => gap > 25), `deltas came together: ${gaps.map(Math.round)}`);
});

for (const how of ['close', 'reset', 'end'])
    scenario(`an upstream that cuts its stream (${how}): error event, end of connection, no [DONE]`, async (t) => {
        const { fake, gw } = await relay(t);
        fake.always(play.cutMidStream({ pieces: ['one ', 'two '], how }));
        const raw = await connect(t, gw);
        raw.send(rawChat(chat('m1', 'x', { stream: true })));
        const head = await raw.head();
        assert.equal(head.status, 200);
        const { bytes, clean } = await raw.drainStream();
        const got = readChatStream(bytes);
        assert.equal(got.text, 'one two ');
        assert.ok(got.error, 'no error event');
        assert.ok(got.error.message.length > 10);
        assert.deepEqual(Object.keys(got.error).sort(), ['code', 'message', 'param', 'type']);
        assert.equal(got.done, false);
        assert.equal(got.finish, null, 'a finish_reason was made up');
        await raw.closed;
        assert.equal(clean, false, 'the chunked body ended cleanly');
        assert.equal(fake.requests.length, 1, 'delivered text must not be asked for again');

        let text = '';
        await assert.rejects(async () => {
            for await (const chunk of await sdkFor(gw).chat.completions.create({ model: 'm1', messages: [{ role: 'user', content: 'x' }], stream: true }))
                text += chunk.choices[0].delta.content ?? '';
        }, 'the SDK raises');
        assert.equal(text, 'one two ');
        const line = (await until(() => gw.accessLines().length >= 2 && gw.accessLines(), 'the access lines'))[0];
        assert.notEqual(line.outcome, 'ok');
    });

scenario('an error event in the middle of a stream is passed on as the end', async (t) => {
    const { fake, gw } = await relay(t);
    const event = (delta) => `data: ${JSON.stringify({ id: 'a', object: 'chat.completion.chunk', created: 1, model: 'm1', choices: [{ index: 0, delta, finish_reason: null }] })}\n\n`;
    fake.always(play.bytes(`${event({ role: 'assistant', content: '' })}${event({ content: 'half' })}data: {"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}\n\ndata: [DONE]\n\n`));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    await raw.head();
    const got = readChatStream((await raw.drainStream()).bytes);
    assert.equal(got.text, 'half');
    assert.match(got.error.message, /The server had an error/);
    assert.equal(got.done, false);
    await raw.closed;
});

scenario('silence in the middle ends with the idle clock', async (t) => {
    const { fake, gw } = await relay(t, { provider: { idle_timeout: '700ms' } });
    fake.always(play.hangAfter(['one ']));
    const raw = await connect(t, gw);
    const begin = performance.now();
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    await raw.head();
    const got = readChatStream((await raw.drainStream()).bytes);
    const took = performance.now() - begin;
    assert.ok(got.error);
    assert.ok(took > 600 && took < 4000, `${took} ms`);
    assert.ok(fake.last.isGone);
});

scenario('total_timeout ends a stream that never does', async (t) => {
    const { fake, gw } = await relay(t, { provider: { total_timeout: '1s' } });
    fake.always(play.ok({ pieces: Array.from({ length: 400 }, () => 'tick '), gapMs: 20 }));
    const got = readChatStream(
        await (async () => {
            const raw = await connect(t, gw);
            raw.send(rawChat(chat('m1', 'x', { stream: true })));
            await raw.head();
            return (await raw.drainStream()).bytes;
        })(),
    );
    assert.ok(got.error);
    assert.ok(got.text.length < 5 * 200);
});

scenario('keep-alive comments fill a silence, and only there', async (t) => {
    const { fake, gw } = await relay(t, { config: { stream: { keepalive: '1s' } } });
    const behave = play.lockstep(['a', 'b']);
    fake.always(behave);
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    await raw.head();
    setTimeout(() => behave.confirm(), 2500);
    setTimeout(() => behave.confirm(), 2550);
    const { bytes, clean } = await raw.drainStream();
    assert.ok(clean);
    const comments = parseSse(bytes).filter((event) => event.comment !== undefined);
    assert.ok(comments.length >= 1 && comments.length <= 3, `${comments.length} comments in 2.5 s`);
    assert.equal(readChatStream(bytes).text, 'ab');
});

scenario('commit_after: 200 and keep-alives while nothing semantic has come', async (t) => {
    const { fake, gw } = await relay(t, { config: { stream: { keepalive: '1s', commit_after: '500ms' } } });
    fake.next(play.after(2000, play.badKey()));
    const raw = await connect(t, gw);
    const begin = performance.now();
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    const head = await raw.head();
    assert.equal(head.status, 200);
    assert.ok(performance.now() - begin < 1800, 'the head waited for the upstream');
    const { bytes } = await raw.drainStream();
    assert.ok(parseSse(bytes).some((event) => event.comment !== undefined));
    assert.equal(readChatStream(bytes).text, 'Hello from upstream.', 'the next credential could still answer');
});

scenario('200 streams at once', async (t) => {
    const { fake, gw } = await relay(t);
    const pieces = Array.from({ length: 10 }, (_, i) => `p${i} `);
    fake.always(play.ok({ pieces, gapMs: 40 }));
    const answers = await Promise.all(Array.from({ length: 200 }, () => request(gw, { body: chat('m1', 'x', { stream: true }) })));
    for (const answer of answers) {
        assert.equal(answer.status, 200);
        const got = readChatStream(answer.bytes);
        assert.equal(got.text, pieces.join(''));
        assert.ok(got.done);
    }
    await until(async () => (await gw.metrics()).get('chatmux_streams_open') === 0, 'no stream to be open');
    assert.ok(fake.sockets.size <= 210);
});

// A stream buffers at most 256 KiB; the rest of the allowance is one read of ours and one write of the fake's.
const MAX_HELD = 256 * 1024 + 64 * 1024;

scenario('a slow reader gets everything in the end', async (t) => {
    const { fake, gw } = await relay(t);
    const size = 12_000_000;
    fake.always(play.big({ bytes: size, piece: 8000 }));
    const raw = await connect(t, gw);
    raw.stopReading();
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    await until(() => fake.last?.json, 'the upstream to begin');
    await sleep(800);
    const queues = tcpQueues();
    const taken = takenBytes(fake.last, queues);
    const held = taken - raw.givenBytes(queues);
    assert.ok(taken < size, `the gateway read all ${taken} bytes for nobody`);
    assert.ok(held <= MAX_HELD, `the gateway holds ${held} bytes`);
    const timer = setInterval(() => {
        raw.stopReading();
        setTimeout(() => raw.readOn(), 5);
    }, 25);
    raw.readOn();
    try {
        await raw.head();
        const { bytes, clean } = await raw.drainStream();
        assert.ok(clean);
        const got = readChatStream(bytes);
        assert.equal(got.text.length, size);
        assert.ok(/^x+$/.test(got.text));
        assert.ok(got.done);
    } finally {
        clearInterval(timer);
    }
});

scenario('a pause that the client causes is not the upstream’s silence', async (t) => {
    const { fake, gw } = await relay(t, { provider: { idle_timeout: '600ms' } });
    fake.always(play.big({ bytes: 12_000_000, piece: 8000 }));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    raw.stopReading();
    await sleep(2000);
    raw.readOn();
    await raw.head();
    const { bytes, clean } = await raw.drainStream();
    assert.ok(clean);
    assert.equal(readChatStream(bytes).text.length, 12_000_000);
});

scenario('200 clients that read nothing cost a bounded part of memory', { timeout: 120_000 }, async (t) => {
    const { fake, gw } = await relay(t);
    const total = 10_000_000;
    await Promise.all(Array.from({ length: 20 }, () => request(gw, { body: chat('m1', 'x', { stream: true }) }))); // warm up
    fake.requests.length = 0;
    fake.always(play.big({ bytes: total, piece: 16_000 }));
    const before = gw.rssBytes();
    const body = rawChat(chat('m1', 'x', { stream: true }));
    const clients = [];
    for (let i = 0; i < 200; i++) {
        const raw = await connect(t, gw);
        raw.stopReading();
        raw.send(body);
        clients.push(raw);
    }
    await until(() => fake.requests.length === 200, '200 requests upstream', 30_000);
    let last = -1;
    await until(
        async () => {
            const sent = fake.requests.reduce((sum, rec) => sum + rec.sent, 0);
            const still = sent === last;
            last = sent;
            if (!still) await sleep(300);
            return still;
        },
        'all upstreams to stand still',
        30_000,
    );
    const growth = gw.rssBytes() - before;
    const queues = tcpQueues();
    const taken = fake.requests.map((rec) => takenBytes(rec, queues));
    const given = clients.map((raw) => raw.givenBytes(queues));
    const sum = (list) => list.reduce((total, n) => total + n, 0);
    const held = (sum(taken) - sum(given)) / 200;
    const limit = 200 * 256 * 1024 * 1.1;
    t.diagnostic(`growth ${(growth / 2 ** 20).toFixed(1)} MiB of ${(limit / 2 ** 20).toFixed(1)} MiB, ${Math.round(held / 1024)} KiB held for each stream`);
    assert.ok(Math.max(...taken) < total, 'an upstream was read to its end');
    assert.ok(held <= MAX_HELD, `${held} bytes held for each stream`);
    if (!sanitized) assert.ok(growth <= limit, `resident memory grew by ${growth} bytes`);
    assert.equal((await request(gw, { path: '/healthz' })).status, 200, 'the gateway still answers');
    for (const raw of clients) raw.reset();
    await until(() => fake.sockets.size === 0, 'every upstream to be closed', 3000);
});

scenario('an answer that is not streamed may be large, and its reader slow', async (t) => {
    const { fake, gw } = await relay(t);
    const text = 'y'.repeat(9_000_000);
    fake.always(play.ok({ text }));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1')));
    raw.stopReading();
    await sleep(500);
    raw.readOn();
    const answer = await raw.response();
    assert.equal(answer.status, 200);
    assert.equal(JSON.parse(answer.text).choices[0].message.content, text);
});
