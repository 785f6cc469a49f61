// The client leaves: its upstream call is closed within a second, the credential is not blamed, the exchange is
// settled once.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { chat, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat } from '../lib/raw.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { say, startFakeHix } from '../lib/fake_hix.mjs';

async function pair(t, provider = {}) {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, { config: { retry: { retries: 0 }, 'provider up': providerFor(fake, provider) } });
    return { fake, gw };
}

const settled = (gw, count = 1) => until(() => gw.accessLines().length >= count && gw.accessLines(), 'the exchange to be settled');

for (const leave of ['close', 'reset'])
    for (const [when, stream, behave, phase] of [
        ['before the head, stream', true, play.hang(), 'before_head'],
        ['before the head, plain', false, play.hang(), 'before_head'],
        ['after the role delta', true, play.hangAfterHead(), 'before_head'],
        ['in the middle of a stream', true, play.hangAfter(['one ', 'two ']), 'middle'],
        ['while the stream is busy', true, play.ok({ pieces: Array.from({ length: 5000 }, () => 'tick '), gapMs: 2 }), 'middle'],
    ])
        scenario(`the client leaves (${leave}) ${when}`, async (t) => {
            const { fake, gw } = await pair(t);
            fake.always(behave);
            const raw = await connect(t, gw);
            raw.send(rawChat(chat('m1', 'x', { stream })));
            await until(() => fake.last?.json, 'the upstream to see the request');
            if (when.includes('middle') || when.includes('busy')) {
                await raw.head();
                await raw.chunk();
            } else await sleep(50);
            const left = performance.now();
            raw[leave]();
            await until(() => fake.last.isGone, 'the upstream connection to be closed', 1500);
            const took = fake.last.goneAt - left;
            assert.ok(took <= 1000, `closed only after ${took} ms`);
            const [line] = await settled(gw);
            assert.equal(line.outcome, 'client_gone');
            await sleep(50);
            assert.equal(gw.accessLines().length, 1, 'settled twice');
            assert.equal((await gw.metrics()).get(`chatmux_client_disconnects_total{phase="${phase}"}`), 1, `${phase} is recorded`);

            fake.always(play.ok());
            assert.equal((await request(gw, { body: chat('m1') })).status, 200, 'the credential was blamed');
        });

scenario('the client leaves behind commit_after: between the head and the first token', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, { config: { retry: { retries: 0 }, stream: { commit_after: '50ms' }, 'provider up': providerFor(fake) } });
    fake.always(play.hangAfterHead());
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    await raw.head();
    raw.close();
    await until(() => fake.last.isGone, 'the upstream connection to be closed', 1500);
    await settled(gw);
    assert.equal((await gw.metrics()).get('chatmux_client_disconnects_total{phase="before_first_token"}'), 1);
});

scenario('the client leaves while its credential is waited for', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, { config: { retry: { retries: 0, max_wait: '20s' }, 'provider up': providerFor(fake, { max_inflight: 1 }) } });
    fake.always(play.hang());
    const first = await connect(t, gw);
    first.send(rawChat(chat('m1')));
    await until(() => fake.requests.length === 1, 'the first request upstream');
    const second = await connect(t, gw);
    second.send(rawChat(chat('m1')));
    await sleep(150);
    assert.equal(fake.requests.length, 1, 'max_inflight is 1');
    second.close();
    await settled(gw, 1);
    first.close();
    await settled(gw, 2);
    fake.always(play.ok());
    assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    assert.equal(fake.requests.length, 2, 'the waiting request of the client that left went upstream');
});

scenario('the client leaves during the pause before a retry', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, { config: { retry: { retries: 5 }, 'provider up': providerFor(fake) } });
    fake.always(play.error(502, 'down', { type: 'server_error' }));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1')));
    await until(() => fake.requests.length >= 1, 'the first attempt');
    raw.close();
    await settled(gw);
    const { length } = fake.requests;
    await sleep(1200);
    assert.equal(fake.requests.length, length, 'an attempt for a client that has left');
});

scenario('the client leaves while it still sends its body', async (t) => {
    const { fake, gw } = await pair(t);
    const raw = await connect(t, gw);
    const text = rawChat(chat('m1', 'x'.repeat(200_000)));
    raw.send(text.slice(0, 100_000));
    await sleep(100);
    raw.reset();
    await sleep(100);
    assert.equal(fake.requests.length, 0);
    assert.equal((await request(gw, { body: chat('m1') })).status, 200);
});

scenario('on_disconnect = drain lets the upstream finish', async (t) => {
    const { fake, gw } = await pair(t, { on_disconnect: 'drain' });
    fake.always(play.ok({ pieces: Array.from({ length: 30 }, () => 'tick '), gapMs: 30 }));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1', 'x', { stream: true })));
    await raw.head();
    raw.close();
    const rec = fake.last;
    await rec.gone;
    assert.equal(rec.isGone, false, 'the upstream was cut');
    const [line] = await settled(gw);
    assert.equal(line.tokens_out, 7, 'the usage of the drained answer is recorded');
});

scenario('draining is bounded: by time, by bytes, by number', async (t) => {
    const leave = async (settings, behave, howMany = 1) => {
        const { fake, gw } = await pair(t, { on_disconnect: 'drain', ...settings });
        fake.always(behave);
        for (let i = 0; i < howMany; i++) {
            const raw = await connect(t, gw);
            raw.send(rawChat(chat('m1', 'x', { stream: true })));
            await until(() => raw.in.includes('one'));
            raw.close();
        }
        return { fake, gw };
    };
    const slow = play.hangAfter(['one ']);
    const timed = await leave({ drain_time: '700ms' }, slow);
    await sleep(400);
    assert.ok(!timed.fake.requests[0].isGone, 'awaited');
    await until(() => timed.fake.requests[0].isGone, 'the upstream to be closed', 2000);
    await until(() => timed.gw.accessLines().some((l) => l.outcome === 'client_gone'));

    const sized = await leave({ drain_bytes: '1k' }, play.ok({ pieces: ['one ', ...Array.from({ length: 300 }, () => 'and another piece of it ')], gapMs: 20 }));
    await until(() => sized.fake.requests[0].isGone, 'the upstream to be closed', 2000);

    const some = await leave({ drain_max: 2 }, slow, 3);
    await until(() => some.fake.requests.filter((r) => r.isGone).length === 1, 'the upstream to be closed', 2000);
    assert.deepEqual(some.fake.requests.map((r) => r.isGone), [false, false, true]);
});

scenario('a hundred clients that leave at once leave nothing behind', async (t) => {
    const { fake, gw } = await pair(t);
    assert.equal((await request(gw, { body: chat('m1') })).status, 200);
    fake.always(play.hangAfter(['one ']));
    const before = gw.sockets();
    const clients = [];
    for (let i = 0; i < 100; i++) {
        const raw = await connect(t, gw);
        raw.send(rawChat(chat('m1', 'x', { stream: true })));
        clients.push(raw);
    }
    await until(() => fake.requests.length === 101, 'all requests upstream');
    for (const raw of clients) await raw.head();
    for (const raw of clients) raw.close();
    await until(() => fake.requests.slice(1).every((rec) => rec.isGone), 'all upstreams to be closed', 2000);
    await until(() => gw.sockets() <= before + 2, 'the sockets to be back', 3000);
    await settled(gw, 101);
    const metrics = await gw.metrics();
    assert.equal(metrics.get('chatmux_streams_open'), 0);
});

scenario('the client of a hix answer leaves', async (t) => {
    const fake = await startFakeHix(t);
    const gw = await startGateway(t, { config: { 'provider hix': { type: 'hix', base_url: fake.base, credentials: fake.sessions } } });
    fake.always(say.hang());
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('hix/deepseek-v3', 'x', { stream: true })));
    const rec = await until(() => fake.of('/api/hix/chat')[0], 'the question to be asked');
    await sleep(50);
    raw.close();
    await until(() => rec.isGone, 'the upstream connection to be closed', 1500);
});

scenario('a client that only closes its sending side still gets its answer', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(play.after(200, play.ok()));
    const raw = await connect(t, gw);
    raw.send(rawChat(chat('m1')));
    raw.endWriting();
    const answer = await raw.response().catch(() => null);
    // Either reading is defensible (RFC 9112 9.6 allows to take it as leaving); what must not happen is half an answer.
    if (answer !== null) assert.equal(JSON.parse(answer.text).choices[0].message.content, 'Hello from upstream.');
    else assert.equal(raw.in.length, 0);
});
