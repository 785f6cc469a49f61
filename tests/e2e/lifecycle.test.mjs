// Reload, drain and the signals: no request is lost, whatever the operator does.
import assert from 'node:assert/strict';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { atEnd, chat, CLIENT_KEY, probe, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat, rawRequest, readChatStream } from '../lib/raw.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const DEMO = { 'provider demo': { type: 'demo' } };

/** Reloads have to be noticed before the next step; the new configuration makes itself known by a model name. */
async function reload(gw, config, probeModel) {
    gw.writeConfig(config);
    gw.signal('SIGHUP');
    await until(async () => (await request(gw, { path: `/v1/models/${probeModel}` })).status === 200, `the model ${probeModel}`);
}

scenario('SIGHUP under load: no request fails', async (t) => {
    const fake = await startFakeOpenai(t);
    const config = (n) => ({ ...DEMO, 'provider up': providerFor(fake, { models: ['m1', `gen-${n}=m1`] }) });
    const gw = await startGateway(t, { config: config(0) });
    fake.always(play.ok({ pieces: ['a ', 'b ', 'c'], gapMs: 15 }));
    const agent = new http.Agent({ keepAlive: true });
    atEnd(t, () => agent.destroy());
    let running = true;
    let served = 0;
    const worker = async (i) => {
        while (running) {
            const stream = i % 2 === 0;
            const answer = await request(gw, { agent, body: chat(i % 3 === 0 ? 'demo' : 'm1', 'a b c', { stream }) });
            assert.equal(answer.status, 200, answer.text);
            if (stream) {
                const got = readChatStream(answer.bytes);
                assert.equal(got.text, 'a b c');
                assert.ok(got.done);
            } else assert.equal(answer.json.choices[0].message.content, 'a b c');
            served++;
        }
    };
    const workers = Array.from({ length: 12 }, (_, i) => worker(i));
    try {
        for (let n = 1; n <= 8; n++) {
            await reload(gw, config(n), `gen-${n}`);
            await sleep(60);
        }
    } finally {
        running = false;
    }
    await Promise.all(workers);
    assert.ok(served > 50, `${served} requests only`);
    assert.equal((await request(gw, { path: '/v1/models/gen-1' })).status, 404, 'the old generation is gone');
});

scenario('a request in flight keeps its configuration', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake) } });
    const behave = play.lockstep(['one ', 'two ', 'three']);
    fake.always(behave);
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    await raw.head();
    await reload(gw, DEMO, 'demo');
    assert.equal((await request(gw, { body: chat('m1') })).status, 404, 'the provider is gone for new requests');
    for (let i = 0; i < 3; i++) behave.confirm();
    const { bytes, clean } = await raw.drainStream();
    assert.ok(clean);
    assert.equal(readChatStream(bytes).text, 'one two three');
});

scenario('a broken file on reload changes nothing and says so', async (t) => {
    const gw = await startGateway(t, { config: DEMO });
    const before = gw.output.length;
    gw.writeConfig('[server]\nlisten = 127.0.0.1:1\nnonsense = 1\n[provider demo]\ntype = dmeo\n');
    gw.signal('SIGHUP');
    await until(() => gw.output.slice(before).includes('nonsense'), 'the problems in the log');
    assert.match(gw.output.slice(before), /chatmux\.ini:3/);
    for (let i = 0; i < 3; i++) assert.equal((await request(gw, { body: chat('demo') })).status, 200);
    await reload(gw, { 'provider again': { type: 'demo', models: ['demo', 'fine=demo'] } }, 'fine');
});

scenario('new keys count from the reload on, old ones no longer', async (t) => {
    const gw = await startGateway(t, { config: DEMO });
    gw.writeConfig({ ...DEMO, auth: { keys: ['sk-another-key-99'] } });
    gw.signal('SIGHUP');
    await until(async () => (await request(gw, { body: chat('demo'), key: 'sk-another-key-99' })).status === 200, 'the new key');
    assert.equal((await request(gw, { body: chat('demo'), key: CLIENT_KEY })).status, 401);
});

scenario('credentials keep their cooldown across a reload', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const config = (n) => ({ retry: { retries: 0 }, 'provider up': providerFor(fake, { models: ['m1', `gen-${n}=m1`] }) });
    const gw = await startGateway(t, { config: config(0) });
    fake.next(play.rateLimited(40));
    assert.equal((await request(gw, { body: chat('m1') })).status, 429);
    await reload(gw, config(1), 'gen-1');
    assert.equal((await request(gw, { body: chat('m1') })).status, 429);
    assert.equal(fake.requests.length, 1);
});

scenario('drain: streams in flight end whole, readiness says 503, nobody new comes in, exit 0', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { ...DEMO, 'provider up': providerFor(fake) } });
    const pieces = Array.from({ length: 30 }, (_, i) => `p${i} `);
    fake.always(play.ok({ pieces, gapMs: 40 }));
    const watcher = await connect(t, gw);
    watcher.send(rawRequest('GET', '/readyz'));
    assert.equal((await watcher.response()).status, 200);
    const answers = Array.from({ length: 20 }, () => request(gw, { body: chat('m1', 'x', { stream: true }) }));
    answers.push(request(gw, { body: chat('m1') }));
    await until(() => fake.requests.length === 21, 'all requests upstream');
    gw.signal('SIGTERM');
    await until(async () => (await probe({ port: gw.port }, '/healthz')) === 0, 'the listener to close', 2000);
    // A kept-alive connection may be closed when it is idle; when it is not, readiness says 503.
    if (!watcher.ended) {
        watcher.send(rawRequest('GET', '/readyz'));
        const ready = await watcher.response().catch(() => null);
        if (ready !== null) assert.equal(ready.status, 503);
    }
    for (const answer of await Promise.all(answers)) {
        assert.equal(answer.status, 200);
        if (answer.headers['content-type'].startsWith('text/event-stream')) {
            const got = readChatStream(answer.bytes);
            assert.equal(got.text, pieces.join(''));
            assert.ok(got.done);
        } else assert.equal(answer.json.choices[0].message.content, pieces.join(''));
    }
    assert.deepEqual(await gw.waitExit(5000), { code: 0, signal: null });
});

scenario('readiness is 503 while draining on a connection that is busy', async (t) => {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo', 'x.delay': '1s' } } });
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('demo', 'slow')) + rawRequest('GET', '/readyz'));
    await sleep(200);
    gw.signal('SIGTERM');
    const first = await raw.response();
    assert.equal(JSON.parse(first.text).choices[0].message.content, 'slow');
    const second = await raw.response().catch(() => null);
    if (second !== null) assert.equal(second.status, 503);
    assert.deepEqual(await gw.waitExit(5000), { code: 0, signal: null });
});

scenario('drain_timeout: what is left then ends with an error in its dialect', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { server: { drain_timeout: '1s' }, 'provider up': providerFor(fake) } });
    fake.always(play.hangAfter(['one ']));
    const stream = await connect(t, gw);
    stream.send(rawChat(chat('m1', 'x', { stream: true })));
    await stream.head();
    await until(() => fake.requests.length === 1, 'the stream');
    fake.always(play.hang());
    const plain = await connect(t, gw);
    plain.send(rawChat(chat('m1')));
    await until(() => fake.requests.length === 2, 'the plain request');
    const begin = performance.now();
    gw.signal('SIGTERM');
    const [streamed, answer] = await Promise.all([stream.drainStream(), plain.response()]);
    const took = performance.now() - begin;
    assert.ok(took > 800 && took < 4000, `${took} ms`);
    const got = readChatStream(streamed.bytes);
    assert.equal(got.text, 'one ');
    assert.ok(got.error, 'the stream ended without an error event');
    assert.equal(got.done, false);
    assert.equal(streamed.clean, false);
    assert.equal(answer.status, 503, answer.text);
    assert.ok(JSON.parse(answer.text).error.message);
    assert.deepEqual(await gw.waitExit(3000), { code: 0, signal: null });
});

scenario('a second signal ends at once', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake) } });
    fake.always(play.hangAfter(['one ']));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    await raw.head();
    gw.signal('SIGTERM');
    await sleep(300);
    assert.equal(gw.exit, null, 'it did not wait for the stream');
    const begin = performance.now();
    gw.signal('SIGINT');
    await gw.waitExit(2000);
    assert.ok(performance.now() - begin < 1500);
});

scenario('SIGINT drains like SIGTERM; an idle gateway ends at once', async (t) => {
    const gw = await startGateway(t, { config: DEMO });
    const idle = await connect(t, gw);
    idle.send(rawRequest('GET', '/healthz'));
    await idle.response();
    const silent = await connect(t, gw);
    const begin = performance.now();
    gw.signal('SIGINT');
    assert.deepEqual(await gw.waitExit(3000), { code: 0, signal: null });
    assert.ok(performance.now() - begin < 2000);
    await Promise.all([idle.closed, silent.closed]);
});

scenario('connections that close just when the signal comes', async (t) => {
    const gw = await startGateway(t, { config: DEMO });
    const clients = await Promise.all(Array.from({ length: 20 }, () => connect(t, gw)));
    for (const raw of clients) raw.send(rawChat(chat('demo', 'x', { stream: true })) + rawRequest('GET', '/healthz'));
    await Promise.all(clients.map(async (raw) => (await raw.body(await raw.head()), await raw.response())));
    gw.signal('SIGSTOP'); // so that it sees both in one turn
    for (const [i, raw] of clients.entries()) i % 2 === 0 ? raw.close() : raw.endWriting();
    await sleep(50);
    gw.signal('SIGTERM');
    gw.signal('SIGCONT');
    assert.deepEqual(await gw.waitExit(4000), { code: 0, signal: null });
});

scenario('SIGPIPE and a closed log do no harm', async (t) => {
    const gw = await startGateway(t, { config: DEMO });
    gw.signal('SIGPIPE');
    gw.child.stderr.destroy();
    gw.child.stdout.destroy();
    for (let i = 0; i < 5; i++) assert.equal((await request(gw, { body: chat('demo') })).status, 200);
});
