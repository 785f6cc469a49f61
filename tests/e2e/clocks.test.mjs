// Each clock has words of its own; keep-alives never hide an upstream that is dead; and behind commit_after the next attempt still answers.
import assert from 'node:assert/strict';
import net from 'node:net';
import { atEnd, chat, scenario, startGateway } from '../lib/gateway.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { connect, parseSse, rawChat, readChatStream } from '../lib/raw.mjs';
import { GEMINI_ARRAY, SURFACES, post, sse } from '../lib/surfaces.mjs';

/** Accepts connections and says nothing, not even hello: TLS never comes to be. */
async function startMute(t) {
    const sockets = new Set();
    const server = net.createServer((socket) => sockets.add(socket.on('error', () => {})));
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    atEnd(t, () => {
        for (const socket of sockets) socket.destroy();
        server.close();
    });
    return server.address().port;
}

const endless = (rec) => play.ok({ pieces: Array.from({ length: 200 }, () => 'tick '), gapMs: 50 })(rec);
/** Roles and comments every 50 ms, and never a word. */
const chatter = (rec) => play.chatterThenError({ ms: 10_000, everyMs: 50 })(rec);

// One provider for each clock, whose clock is short; the one account it has cannot be replaced.
const CLOCKS = {
    connect: { setting: { connect_timeout: '300ms' }, words: /connect|handshake|TLS|timed out/i, stream: true },
    first: { setting: { first_token_timeout: '300ms' }, behave: chatter, words: /nothing of the answer came within first_token_timeout \(300 ms\)/, stream: true },
    silent: { setting: { idle_timeout: '300ms' }, behave: play.hangAfter(['one ']), words: /the stream was silent for idle_timeout \(300 ms\)/, stream: true, begun: true },
    response: { setting: { response_timeout: '300ms' }, behave: play.hang(), words: /no answer began within response_timeout \(300 ms\)/, stream: false },
    total: { setting: { total_timeout: '400ms' }, behave: endless, words: /the whole answer took longer than total_timeout \(400 ms\)/, stream: true, begun: true },
};

scenario('each clock says which one it was', async (t) => {
    const fake = await startFakeOpenai(t, { keys: Object.keys(CLOCKS).map((name) => `sk-${name}`) });
    const mute = await startMute(t);
    const config = { retry: { retries: 0 }, upstream: { breaker_rate: 0 } };
    for (const [name, clock] of Object.entries(CLOCKS)) {
        config[`provider ${name}`] = { ...providerFor(fake, clock.setting), credentials: [`sk-${name}`] };
        if (clock.behave) fake.key(`sk-${name}`, clock.behave);
    }
    config['provider connect'].base_url = `https://127.0.0.1:${mute}/v1`;
    const gw = await startGateway(t, { config });
    const said = await Promise.all(
        Object.entries(CLOCKS).map(async ([name, { stream, begun, words }]) => {
            const began = performance.now();
            const r = await post(gw, '/v1/chat/completions', chat(`${name}/m1`, 'x', { stream }));
            const what = `${name}: ${r.status} ${r.text.slice(-300)}`;
            assert.ok(performance.now() - began < 5000, what);
            const error = begun ? readChatStream(Buffer.from(r.text)).error : JSON.parse(r.text).error;
            assert.equal(r.status, begun ? 200 : name === 'connect' ? r.status : 504, what);
            assert.ok(r.status === 200 || r.status >= 500, what);
            assert.match(error.message, words, what);
            assert.ok(error.message.startsWith(`${name}: `) || name === 'connect', what);
            return error.message;
        }),
    );
    assert.equal(new Set(said).size, said.length, 'no two say the same');
});

scenario('keep-alives fill the silence of a dead upstream, and do not prolong it', async (t) => {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, {
        config: { retry: { retries: 0 }, stream: { keepalive: '1s', commit_after: '300ms' }, upstream: { idle_timeout: '2500ms', first_token_timeout: '2500ms' }, 'provider up': providerFor(fake) },
    });
    const one = async (behave) => {
        fake.next(behave);
        const raw = await connect(t, gw);
        const began = performance.now();
        raw.send(rawChat(chat('m1', 'x', { stream: true })));
        assert.equal((await raw.head()).status, 200);
        const { bytes, clean } = await raw.drainStream();
        const [got, ms] = [readChatStream(bytes), performance.now() - began];
        assert.ok(!clean && got.error, 'no clean end');
        assert.ok(ms > 2300 && ms < 4500, `${ms} ms`);
        return { comments: parseSse(bytes).filter((event) => event.comment !== undefined).length, got };
    };
    const [late, never] = await Promise.all([one(play.hangAfter(['one '])), one(play.hang())]);
    for (const { comments } of [late, never]) assert.ok(comments >= 1 && comments <= 4, `${comments} comments`);
    assert.deepEqual([late.got.text, never.got.text].sort(), ['', 'one ']);
});

/** The head and keep-alives are out, and nothing of an answer. */
async function behindTheHead(t, name, surface) {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1', 'sk-up-2', 'sk-up-3'], strict: false });
    const gw = await startGateway(t, { config: { retry: { retries: 0 }, stream: { keepalive: '1s', commit_after: '100ms' }, 'provider up': providerFor(fake, surface.provider) } });
    const events = surface.events ?? sse;
    const down = play.after(250, play.error(503, 'busy', { type: 'server_error' }));

    fake.next(down, play.after(200, play.badKey()));
    const good = await post(gw, surface.path(true), surface.body(true));
    const what = `${name}: ${good.status} ${good.text}`;
    assert.ok(good.clean, what);
    assert.equal(good.status, 200, what);
    assert.equal(surface.streamedText(events(good.text)), 'Hello from upstream.', what);
    assert.ok(surface.isDone(events(good.text)), what);
    assert.equal(good.headers['x-chatmux-attempts'], '1', `${name}: the head was out during the first`);
    assert.equal(fake.requests.length, 3, what);

    fake.always(down);
    const failed = await post(gw, surface.path(true), surface.body(true));
    assert.equal(failed.status, 200, `${name}: ${failed.text}`);
    assert.ok(!failed.clean, `${name}: a clean end of ${failed.text}`);
    assert.ok(surface.isError(events(failed.text)), `${name}: ${failed.text}`);
    assert.equal(surface.streamedText(events(failed.text)), '', `${name}: ${failed.text}`);
    assert.equal(fake.requests.length, 5, `${name}: each account that was left`);
}

scenario('behind commit_after the next attempt answers, or the error is told in the stream of each dialect', (t) =>
    Promise.all(Object.entries({ ...SURFACES, 'an array of Gemini’s': GEMINI_ARRAY }).map(([name, surface]) => behindTheHead(t, name, surface))));
