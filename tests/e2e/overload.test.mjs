// Too much: what is new is refused before its body is read, with 503 and a time; what runs goes on.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { chat, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { connect, rawChat, rawRequest, readChatStream } from '../lib/raw.mjs';

const DEMO = { 'provider demo': { type: 'demo', 'x.chunk_ms': 100 } };

async function assertRefused(t, gw, why) {
    const raw = await connect(t, gw);
    raw.send(rawRequest('POST', '/v1/chat/completions', { headers: [`Authorization: Bearer ${CLIENT_KEY}`, 'Content-Type: application/json', 'Content-Length: 1000000'] }));
    const r = await raw.response(); // not a byte of the body was sent
    assert.equal(r.status, 503);
    assert.equal(r.headers['retry-after'], '1');
    assert.match(JSON.parse(r.body).error.message, why);
}

scenario('max_streams', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, server: { max_streams: 2 } } });
    const words = Array.from({ length: 30 }, (_, i) => `w${i}`).join(' ');
    const open = await Promise.all(
        [1, 2].map(async () => {
            const raw = await connect(t, gw);
            raw.send(rawChat(chat('demo', words, { stream: true })));
            raw.headOf = await raw.head();
            return raw;
        }),
    );
    await assertRefused(t, gw, /2 streams open/);
    const models = await request(gw, { method: 'GET', path: '/v1/models' });
    assert.equal(models.status, 200, 'questions about the gateway are answered');
    for (const raw of open) {
        assert.equal(readChatStream(await raw.body(raw.headOf)).text, words);
    }
    assert.equal((await request(gw, { body: chat('demo') })).status, 200, 'and then there is room again');
});

const SILENT = chat('m1', 'x', { stream: true });

/** A provider that says nothing, and places for two streams. */
async function silentGateway(t) {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    fake.always(play.hang());
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake), server: { max_streams: 2 } } });
    return { fake, gw };
}

async function openSilent(t, gw, fake) {
    const before = fake.requests.length;
    const raw = await connect(t, gw);
    raw.send(rawChat(SILENT));
    await until(() => fake.requests.length > before, 'the upstream to be asked');
    return raw;
}

scenario('max_streams: those that are silent so far count until they end', async (t) => {
    const { fake, gw } = await silentGateway(t);
    const first = await openSilent(t, gw, fake);
    fake.next(play.after(1500, play.ok()));
    const second = await openSilent(t, gw, fake);
    await assertRefused(t, gw, /2 streams open/);
    assert.equal((await gw.metrics()).get('chatmux_streams_open'), 0, 'none has begun');

    first.socket.destroy();
    await until(() => fake.requests[0].isGone, 'the upstream to be left');
    const third = await openSilent(t, gw, fake);
    await assertRefused(t, gw, /2 streams open/);

    const head = await second.head();
    assert.equal(readChatStream(await second.body(head)).text, 'Hello from upstream.');
    fake.next(play.error(400, 'no', { param: 'model' }));
    assert.equal((await request(gw, { body: SILENT })).status, 400);
    await openSilent(t, gw, fake); // one that has failed has left its place, too
    await assertRefused(t, gw, /2 streams open/);
    third.socket.destroy();
    await until(() => fake.requests[2].isGone, 'the upstream to be left');
    fake.always(play.ok());
    assert.equal((await request(gw, { body: SILENT })).status, 200);
});

scenario('max_streams: of bodies that come together no more become streams, and whole answers take no place', async (t) => {
    const { fake, gw } = await silentGateway(t);
    for (let whole = 1; whole <= 3; whole++) {
        (await connect(t, gw)).send(rawChat(chat('m1')));
        await until(() => fake.requests.length === whole, 'the upstream to be asked');
    }
    const message = JSON.stringify({ ...SILENT, max_tokens: 100 });
    const crowd = await Promise.all(
        Array.from({ length: 5 }, async () => {
            const raw = await connect(t, gw);
            raw.send(rawRequest('POST', '/v1/messages', { headers: ['Content-Type: application/json', `Content-Length: ${message.length}`, 'Expect: 100-continue'] }));
            assert.equal((await raw.head()).status, 100, 'there is room while nobody has said what it wants');
            return raw;
        }),
    );
    const refusals = [];
    for (const raw of crowd) {
        raw.send(message);
        raw.response().then((r) => refusals.push(r), () => {}); // the streams never answer
    }
    await until(() => refusals.length >= 3 && fake.requests.length >= 5, 'three to be refused');
    for (const r of refusals) {
        assert.equal(r.status, 529, 'as this dialect says it');
        assert.equal(r.headers['retry-after'], '1');
        const { type, error } = JSON.parse(r.body);
        assert.equal(type, 'error');
        assert.equal(error.type, 'overloaded_error');
        assert.match(error.message, /2 streams open/);
    }
    assert.equal(refusals.length, 3);
    assert.equal(fake.requests.length, 5);
});

scenario('max_lag: while the loop is late what is new is refused, what runs goes on', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, server: { max_lag: '20ms' } } });
    const words = Array.from({ length: 30 }, (_, i) => `w${i}`).join(' ');
    let open, head;
    for (let tries = 0; head?.status !== 200; tries++) { // the machine may be busy with other things, and the loop late for that
        assert.ok(tries < 50, `still refused: ${head?.status}`);
        open = await connect(t, gw);
        open.send(rawChat(chat('demo', words, { stream: true })));
        head = await open.head();
        if (head.status !== 200) await sleep(100);
    }

    // All of these are there when the process goes on: one turn of the loop reads them all.
    const body = JSON.stringify({ model: 'nobody-has-it', messages: Array.from({ length: 1500 }, () => ({ role: 'user', content: 'x' })) });
    const crowd = await Promise.all(Array.from({ length: 200 }, () => connect(t, gw)));
    gw.child.kill('SIGSTOP');
    for (const raw of crowd) raw.send(rawChat(body));
    await sleep(300);
    gw.child.kill('SIGCONT');
    await crowd[0].response();
    await assertRefused(t, gw, /more to do than it can/);
    assert.equal(readChatStream(await open.body(head)).text, words);
    await until(async () => (await request(gw, { body: chat('demo') })).status === 200, 'the gateway to have recovered', 6000);
});

scenario('max_memory', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO, server: { max_memory: '1m' } } });
    await assertRefused(t, gw, /limit of memory/);
    assert.equal((await request(gw, { method: 'GET', path: '/readyz' })).status, 200);
});
