// Streams that survive their client: chat, messages and generateContent with x-chatmux-resumable. (Jobs of the Responses API: background.test.mjs.)
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { CLIENT_KEY, chat, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawRequest } from '../lib/raw.mjs';
import { openEvents } from '../lib/events.mjs';
import * as openai from '../lib/fake_openai.mjs';
import * as anthropic from '../lib/fake_anthropic.mjs';
import * as gemini from '../lib/fake_gemini.mjs';

const { play } = openai;
const KEPT = 'x-chatmux-resumable: 1';
const OTHER_KEY = 'sk-test-client-key-0815';
const CLAUDE = 'claude-sonnet-4-5';
const FLASH = 'gemini-2.5-flash';
const BROKEN = { retry: { retries: 0 } };

async function chatPair(t, { resume = {}, stream = {}, provider = {} } = {}) {
    const fake = await openai.startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, {
        config: { auth: { keys: [CLIENT_KEY, OTHER_KEY] }, resume, stream, ...BROKEN, 'provider up': openai.providerFor(fake, provider) },
    });
    return { fake, gw };
}

const ask = (t, gw, body = chat('m1', 'hi', { stream: true }), more = {}) =>
    openEvents(t, gw, 'POST', '/v1/chat/completions', { body, headers: [KEPT], ...more });
const again = (t, gw, id, last = null, more = {}) =>
    openEvents(t, gw, 'GET', `/v1/chatmux/streams/${id}`, { headers: last === null ? [] : [`Last-Event-ID: ${last}`], ...more });
const refused = (promise) => promise.then(() => assert.fail('it was served'), (error) => ({ status: error.status, ...JSON.parse(error.body).error }));
const texts = (events) => events.map((e) => (e.data.startsWith('{') && JSON.parse(e.data).choices?.[0]?.delta.content) || '').join('');
const figures = async (gw) => {
    const m = await gw.metrics();
    return { running: m.get('chatmux_kept_streams{state="running"}'), ended: m.get('chatmux_kept_streams{state="ended"}'), bytes: m.get('chatmux_kept_bytes'), evicted: m.get('chatmux_kept_events_evicted_total') };
};

// ---- killed at every event -----------------------------------------------------------------------------------------

const DIALECTS = {
    chat: { path: '/v1/chat/completions', body: (model) => chat(model, 'hi', { stream: true, stream_options: { include_usage: true } }) },
    completions: { path: '/v1/completions', body: (model) => ({ model, prompt: 'hi', stream: true }) },
    messages: { path: '/v1/messages', body: (model) => ({ model, max_tokens: 500, stream: true, messages: [{ role: 'user', content: 'hi' }] }) },
    generateContent: { path: (model) => `/v1beta/models/${model}:streamGenerateContent?alt=sse`, body: () => ({ contents: [{ role: 'user', parts: [{ text: 'hi' }] }] }) },
};
const UPSTREAMS = {
    openai: {
        model: 'm1',
        start: async (t) => {
            const fake = await openai.startFakeOpenai(t, { keys: ['sk-up-1'] });
            fake.always(play.ok({ pieces: ['One ', 'twö ', 'three ', 'four.'], gapMs: 4 }));
            return openai.providerFor(fake, { 'x.tasks': 'chat' });
        },
    },
    anthropic: {
        model: CLAUDE,
        start: async (t) => {
            const fake = await anthropic.startFakeAnthropic(t, {});
            fake.always(anthropic.play.answer({ content: [{ type: 'text', text: 'A somewhat longer answer, in pieces.' }] }, { gapMs: 4 }));
            return anthropic.providerFor(fake);
        },
    },
    gemini: {
        model: FLASH,
        start: async (t) => gemini.providerFor(await gemini.startFakeGemini(t, {})),
    },
};

/** What must be the same in every reading of equal answers: all but what is new each time (ids, times). */
const shape = (event) => ({ event: event.event, data: event.data.replace(/"(id|responseId|created|item_id|request_id)":("[^"]*"|\d+)/g, '"$1":0') });

for (const [dialect, { path, body }] of Object.entries(DIALECTS))
    for (const [name, upstream] of Object.entries(UPSTREAMS))
        scenario(`${dialect} over ${name}: a client killed at every event gets each event exactly once`, async (t) => {
            const gw = await startGateway(t, { config: { ...BROKEN, 'provider up': await upstream.start(t) } });
            const where = typeof path === 'function' ? path(upstream.model) : path;
            const begin = (headers = [KEPT]) => openEvents(t, gw, 'POST', where, { body: body(upstream.model), headers: ['anthropic-version: 2023-06-01', ...headers] });

            const plain = await (await begin([])).rest();
            assert.equal(plain.head.headers['x-chatmux-stream'], undefined);
            assert.ok(plain.seen.length >= 4 && plain.clean, `only ${plain.seen.length} events`);
            assert.deepEqual(plain.seen.map((e) => e.id).filter(Boolean), [], 'ids that nobody asked for');
            const wanted = plain.seen.map(shape);

            await Promise.all(Array.from({ length: wanted.length + 1 }, async (_, at) => {
                const first = await (await begin()).take(at);
                first.vanish();
                const id = first.streamId;
                // with nothing read there is no id of an event, but there is one of the stream
                const second = at === 0 ? await again(t, gw, id) : await (at % 2 ? again(t, gw, id, first.lastId) : begin([KEPT, `Last-Event-ID: ${first.lastId}`]));
                await second.rest();
                assert.equal(second.streamId, id);
                assert.ok(second.clean);
                const both = [...first.seen, ...second.seen];
                assert.deepEqual(both.map((e) => e.id), wanted.map((_, n) => `${id}:${n}`), `killed after ${at}`);
                assert.deepEqual(both.map(shape), wanted, `killed after ${at}`);
            }));

            // one stream, and another client for each of its events
            const one = await begin();
            const events = [];
            for (let client = one, n = 0; ; n++) {
                if ((await client.next()) === null) break;
                events.push(client.seen.at(-1));
                client.vanish();
                client = await again(t, gw, one.streamId, n);
            }
            assert.deepEqual(events.map(shape), wanted);
            assert.deepEqual(new Set(gw.accessLines().filter((l) => l.method === 'POST' && l.attempts > 0).map((l) => l.outcome)), new Set(['ok']));
        });

scenario('the official SDKs read a stream with ids as they read any', async (t) => {
    const { fake, gw } = await chatPair(t);
    fake.always(play.ok({ pieces: ['One ', 'two.'] }));
    const headers = { 'x-chatmux-resumable': '1' };
    const oai = new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0, defaultHeaders: headers });
    const { data, response } = await oai.chat.completions.create(chat('m1', 'hi', { stream: true })).withResponse();
    let text = '';
    for await (const chunk of data) text += chunk.choices[0]?.delta.content ?? '';
    assert.equal(text, 'One two.');
    assert.match(response.headers.get('x-chatmux-stream'), /^strm_[0-9a-f]{32}$/);
    const claude = new Anthropic({ baseURL: gw.url, apiKey: CLIENT_KEY, maxRetries: 0, defaultHeaders: headers });
    const message = await claude.messages.stream(DIALECTS.messages.body('m1')).finalMessage();
    assert.equal(message.content[0].text, 'One two.');
    assert.equal((await figures(gw)).ended, 2);
});

// ---- the life of a stream ------------------------------------------------------------------------------------------

scenario('the upstream goes on without its client, usage is settled once, and the answer waits', async (t) => {
    const { fake, gw } = await chatPair(t);
    fake.always(play.ok({ pieces: ['a', 'b', 'c', 'd', 'e', 'f'], gapMs: 15 }));
    const first = await (await ask(t, gw)).take(2);
    first.vanish();
    await fake.last.gone;
    assert.equal(fake.last.isGone, false, 'the upstream was cut');
    const line = await gw.accessLine(first.head.headers['x-request-id']);
    assert.equal(line.outcome, 'ok');
    assert.equal(line.tokens_out, 7);
    const { running, ended, bytes } = await figures(gw);
    assert.deepEqual([running, ended], [0, 1]);
    assert.ok(bytes > 500 && bytes < 20_000, `${bytes} bytes`);
    const second = await (await again(t, gw, first.streamId, first.lastId)).rest();
    assert.equal(texts([...first.seen, ...second.seen]), 'abcdef');
    assert.equal(second.seen.at(-1).data, '[DONE]');
    assert.equal(fake.requests.length, 1);
    assert.equal(gw.accessLines().filter((l) => l.tokens_out > 0).length, 1, 'settled twice');
    // and once more from the beginning, by whatever way a client has
    for (const more of ['', '?starting_after=1']) {
        const third = await (await openEvents(t, gw, 'GET', `/v1/chatmux/streams/${first.streamId}${more}`)).rest();
        assert.equal(third.seen[0].id, `${first.streamId}:${more ? 2 : 0}`);
        assert.ok(third.clean);
    }
    const head = await request(gw, { method: 'HEAD', path: `/v1/chatmux/streams/${first.streamId}` });
    assert.deepEqual([head.status, head.text, head.headers['x-chatmux-stream']], [200, '', first.streamId]);
});

scenario('two clients follow one stream, each at its own pace; a slow one pauses nothing', async (t) => {
    const { fake, gw } = await chatPair(t);
    fake.always(play.big({ bytes: 5 << 20, piece: 16384 }));
    const slow = await ask(t, gw);
    slow.raw.stopReading();
    await fake.last.gone; // all of it was taken from the upstream, although the only client does not read
    assert.equal(fake.last.isGone, false);
    const quick = await (await again(t, gw, slow.streamId)).rest();
    assert.ok(quick.clean);
    assert.equal(texts(quick.seen).length, 5 << 20);
    slow.raw.readOn();
    await slow.rest();
    assert.ok(slow.clean);
    assert.deepEqual(slow.seen.map((e) => e.id), quick.seen.map((e) => e.id));
    assert.equal(texts(slow.seen).length, 5 << 20);
});

scenario('a stream that nobody comes back to is given up, and says so later', async (t) => {
    const { fake, gw } = await chatPair(t, { resume: { away: '150ms' } });
    fake.always(play.hangAfter(['one ', 'two ']));
    const first = await (await ask(t, gw)).take(3);
    const left = performance.now();
    first.vanish();
    await until(() => fake.last.isGone, 'the upstream to be closed', 1500);
    assert.ok(fake.last.goneAt - left >= 140, 'it was not waited');
    const line = await gw.accessLine(first.head.headers['x-request-id']);
    assert.equal(line.outcome, 'client_gone');
    const second = await (await again(t, gw, first.streamId, first.lastId)).rest();
    assert.equal(second.clean, false);
    assert.match(JSON.parse(second.seen.at(-1).data).error.message, /no client has read it/);
    fake.always(play.ok());
    assert.equal((await request(gw, { body: chat('m1') })).status, 200, 'the credential was blamed');
});

scenario('a client that comes back in time keeps it alive; keep-alives are not events', async (t) => {
    const { fake, gw } = await chatPair(t, { resume: { away: '500ms' }, stream: { keepalive: '60ms' } });
    fake.always(play.hangAfter(['one ', 'two ']));
    const first = await (await ask(t, gw)).take(3);
    first.vanish();
    const second = await again(t, gw, first.streamId, first.lastId);
    await sleep(700); // longer than away
    assert.equal(fake.last.isGone, false);
    assert.match(second.raw.in.toString(), /\n: /, 'no keep-alive');
    assert.deepEqual(second.seen, []);
    const gone = await request(gw, { method: 'DELETE', path: `/v1/chatmux/streams/${first.streamId}` });
    assert.deepEqual(gone.json, { id: first.streamId, object: 'chatmux.stream', deleted: true });
    await second.rest();
    assert.equal(second.clean, false);
    assert.match(JSON.parse(second.seen.at(-1).data).error.message, /cancelled/);
    assert.equal(second.seen.at(-1).id, `${first.streamId}:3`);
});

scenario('DELETE closes the upstream within a second, and the stream is gone', async (t) => {
    const { fake, gw } = await chatPair(t);
    fake.always(play.hangAfter(['one ']));
    const first = await (await ask(t, gw)).take(2);
    const path = `/v1/chatmux/streams/${first.streamId}`;
    assert.equal((await request(gw, { method: 'DELETE', path, key: OTHER_KEY })).status, 404);
    const asked = performance.now();
    assert.equal((await request(gw, { method: 'DELETE', path })).status, 200);
    await until(() => fake.last.isGone, 'the upstream to be closed', 1500);
    assert.ok(fake.last.goneAt - asked < 1000);
    await first.rest();
    assert.equal(first.clean, false);
    assert.equal((await request(gw, { method: 'DELETE', path })).status, 404);
    assert.equal((await refused(again(t, gw, first.streamId))).code, 'stream_not_found');
    assert.deepEqual(await figures(gw), { running: 0, ended: 0, bytes: 0, evicted: 0 });
    // of one that has ended it is forgotten
    fake.always(play.ok());
    const second = await (await ask(t, gw)).rest();
    assert.equal((await request(gw, { method: 'DELETE', path: `/v1/chatmux/streams/${second.streamId}` })).status, 200);
    assert.equal((await refused(again(t, gw, second.streamId))).status, 404);
});

scenario('an upstream that breaks off: every reader sees it, today and later', async (t) => {
    const { fake, gw } = await chatPair(t);
    fake.always(play.cutMidStream({ pieces: ['one ', 'two '] }));
    const first = await (await ask(t, gw)).rest();
    const second = await (await again(t, gw, first.streamId, first.seen[1].id)).rest();
    for (const reader of [first, second]) {
        assert.equal(reader.clean, false, 'it looks like a whole answer');
        assert.equal(JSON.parse(reader.seen.at(-1).data).error.code, 'upstream_cut');
    }
    assert.deepEqual(second.seen, first.seen.slice(2));
    assert.equal((await gw.accessLine(first.head.headers['x-request-id'])).outcome, 'cut');
});

scenario('whatever way an upstream writes its events: ours have one id each, and no comments among them', async (t) => {
    const { fake, gw } = await chatPair(t);
    const chunk = (delta, finish = null) => JSON.stringify({ id: 'c', object: 'chat.completion.chunk', created: 1, model: 'm1', choices: [{ index: 0, delta, finish_reason: finish }] });
    const body = [
        '\ufeff: hello\n\n', `id: 7\r\ndata: ${chunk({ role: 'assistant', content: '' })}\r\n\r\n`, ': PROCESSING\r\r', `data: ${chunk({ content: 'Grüße ' })}\r\r`,
        `retry: 5\nevent: message\nid: x\ndata: ${chunk({ content: '世界' })}\n\n`, '\n\n', `data:${chunk({}, 'stop')}\n\n`, 'data: [DONE]\n',
    ].join('');
    const seen = [];
    for (const size of [1, 7, 100_000]) {
        fake.always(play.bytes(body, { size, gapMs: 0 }));
        const first = await (await ask(t, gw)).rest();
        assert.ok(first.clean);
        assert.deepEqual(first.seen.map((e) => e.id), [0, 1, 2, 3, 4].map((n) => `${first.streamId}:${n}`));
        assert.equal(texts(first.seen), 'Grüße 世界');
        assert.deepEqual((await (await again(t, gw, first.streamId, 1)).rest()).seen, first.seen.slice(2));
        seen.push(first.seen.map(({ event, data }) => [event, data]));
    }
    assert.deepEqual(seen[1], seen[0]);
    assert.deepEqual(seen[2], seen[0]);
});

scenario('behind commit_after a failure is an event like any other', async (t) => {
    const { fake, gw } = await chatPair(t, { stream: { commit_after: '30ms' } });
    fake.always(play.after(120, play.error(503, 'no', { type: 'server_error' })));
    const first = await (await ask(t, gw)).rest();
    const second = await (await again(t, gw, first.streamId)).rest();
    assert.equal(JSON.parse(first.seen.at(-1).data).error.code, 'overloaded');
    assert.deepEqual(first.seen.map((e) => e.id), first.seen.map((_, n) => `${first.streamId}:${n}`));
    assert.deepEqual(second.seen, first.seen);
    assert.deepEqual([first.clean, second.clean], [false, false]);
});

scenario('before the head it is a request like any other', async (t) => {
    const { fake, gw } = await chatPair(t);
    fake.always(play.error(400, 'no', {}));
    assert.equal((await refused(ask(t, gw))).status, 400);
    fake.always(play.hang());
    const raw = await connect(t, gw);
    raw.send(rawRequest('POST', '/v1/chat/completions', { body: JSON.stringify(chat('m1', 'x', { stream: true })), headers: [KEPT] }));
    await until(() => fake.requests.length === 2, 'the upstream to be asked');
    raw.reset();
    await until(() => fake.last.isGone, 'the upstream to be closed', 1500);
    assert.equal((await figures(gw)).running, 0);
    // what makes no stream is answered as ever
    fake.always(play.ok());
    const whole = await request(gw, { body: chat('m1'), headers: { 'x-chatmux-resumable': '1' } });
    assert.deepEqual([whole.status, whole.headers['x-chatmux-stream']], [200, undefined]);
    const off = await ask(t, gw, undefined, { headers: ['x-chatmux-resumable: 0'] });
    assert.equal(off.streamId, undefined);
    assert.equal((await refused(ask(t, gw, undefined, { headers: ['x-chatmux-resumable: maybe'] }))).param, 'x-chatmux-resumable');
});

scenario('ids: of another key, of another stream, of nothing, of the future', async (t) => {
    const { fake, gw } = await chatPair(t);
    fake.always(play.ok());
    const mine = await (await ask(t, gw)).rest();
    const other = await (await ask(t, gw)).rest();
    const notFound = [[mine.streamId, null, { key: OTHER_KEY }], ['strm_00000000000000000000000000000000'], ['x'], [`${mine.streamId}0`]];
    for (const [id, last, more] of notFound) assert.deepEqual((({ status, code }) => [status, code])(await refused(again(t, gw, id, last, more))), [404, 'stream_not_found']);
    for (const last of ['x', '-1', `${other.streamId}:1`, `${mine.streamId}:`, '1e3', '18446744073709551615', ''.padEnd(30, '9')])
        assert.deepEqual((({ status, param }) => [status, param])(await refused(again(t, gw, mine.streamId, last))), [400, 'Last-Event-ID'], last);
    const end = mine.seen.length;
    assert.equal((await refused(again(t, gw, mine.streamId, end))).code, 'no_such_event');
    const nothing = await (await again(t, gw, mine.streamId, end - 1)).rest();
    assert.deepEqual([nothing.seen, nothing.clean], [[], true]);
    // the same request again, by another key, is no new request either: it would be paid twice
    const { length } = fake.requests;
    assert.equal((await refused(ask(t, gw, undefined, { key: OTHER_KEY, headers: [KEPT, `Last-Event-ID: ${mine.lastId}`] }))).status, 404);
    assert.equal(fake.requests.length, length);
});

/** The next answers say a word, wait for the returned function to be called, and go on as fast as they are read. */
function gated(fake, bytes) {
    let open;
    const opened = new Promise((done) => (open = done));
    fake.always(async (rec) => {
        const w = new openai.ChunkWriter('m1', false);
        rec.res.writeHead(200, { 'content-type': 'text/event-stream' });
        rec.res.write(w.role() + w.text('begin '));
        await opened;
        for (let left = bytes; left > 0 && !rec.isGone; left -= 16384)
            if (!rec.res.write(w.text('z'.repeat(16384)))) await Promise.race([once(rec.res, 'drain'), rec.gone]);
        rec.res.end(w.end());
    });
    return open;
}

// ---- bounds --------------------------------------------------------------------------------------------------------

scenario('at max_bytes the upstream waits for a client that reads, and ends without one; what was read makes room', async (t) => {
    const { fake, gw } = await chatPair(t, { resume: { max_bytes: '1m' } });
    fake.always(play.big({ bytes: 4 << 20, piece: 4096 }));
    const reader = await (await ask(t, gw)).rest(); // 4 MiB through 1 MiB
    assert.ok(reader.clean);
    assert.equal(texts(reader.seen).length, 4 << 20);
    assert.ok((await figures(gw)).bytes <= 1 << 20);
    const late = await refused(again(t, gw, reader.streamId, 3));
    assert.deepEqual([late.status, late.code], [410, 'events_expired']);
    const tail = await (await again(t, gw, reader.streamId, reader.seen.length - 5)).rest();
    assert.deepEqual(tail.seen, reader.seen.slice(-4));

    // a client that has left without a word must not stop the one that came in its place
    let gate = gated(fake, 16 << 20);
    const stuck = await (await ask(t, gw)).take(2);
    stuck.raw.stopReading();
    const instead = await again(t, gw, stuck.streamId);
    gate();
    await instead.rest();
    assert.ok(instead.clean);
    assert.equal(texts(instead.seen).length, 6 + (16 << 20));

    gate = gated(fake, 64 << 20);
    const absent = await (await ask(t, gw)).take(2);
    absent.vanish();
    await until(async () => (await gw.metrics()).get('chatmux_client_disconnects_total{phase="middle"}') >= 1, 'the client to have left');
    gate();
    await until(() => fake.last.isGone, 'the upstream to be closed', 5000);
    const line = await gw.accessLine(absent.head.headers['x-request-id']);
    assert.deepEqual([line.outcome, line.error], ['cut', 'too_large']);
    const back = await (await again(t, gw, absent.streamId, absent.lastId)).rest();
    assert.equal(back.clean, false);
    assert.deepEqual(back.seen.map((e) => e.id), back.seen.map((_, n) => `${absent.streamId}:${n + 2}`), 'a gap');
    assert.match(JSON.parse(back.seen.at(-1).data).error.message, /resume\.max_bytes/);
});

scenario('streams of a key, and of all, are counted; those that have ended make room', async (t) => {
    const { fake, gw } = await chatPair(t, { resume: { max_per_key: 2, max_streams: 3 } });
    fake.always(play.ok());
    const ended = [];
    for (let i = 0; i < 3; i++) ended.push(await (await ask(t, gw)).rest());
    assert.equal((await figures(gw)).ended, 2);
    assert.equal((await refused(again(t, gw, ended[0].streamId))).status, 404);
    await (await again(t, gw, ended[1].streamId)).rest();
    fake.always(play.hangAfter(['x']));
    await (await ask(t, gw)).take(1);
    await (await ask(t, gw)).take(1);
    const third = await refused(ask(t, gw));
    assert.deepEqual([third.status, third.code], [429, 'rate_limit_exceeded']);
    assert.match(third.message, /2 streams of this key/);
    await (await ask(t, gw, undefined, { key: OTHER_KEY })).take(1);
    const fourth = await refused(ask(t, gw, undefined, { key: OTHER_KEY }));
    assert.equal(fourth.status, 503);
    assert.equal((await figures(gw)).running, 3);
});

scenario('all logs together stay below max_total, and what has ended goes first', async (t) => {
    const { fake, gw } = await chatPair(t, { resume: { max_total: '1m', max_per_key: 1000 } });
    fake.always(play.ok({ text: 'y'.repeat(2000) }));
    const first = await (await ask(t, gw)).rest();
    for (let i = 0; i < 25; i++) await (await ask(t, gw)).rest();
    const { bytes, evicted } = await figures(gw);
    assert.ok(bytes <= 1 << 20 && bytes > 1 << 19, `${bytes} bytes`);
    assert.ok(evicted > 100);
    assert.equal((await refused(again(t, gw, first.streamId))).code, 'events_expired');
});

scenario('an ended stream is forgotten after resume.keep', async (t) => {
    const { fake, gw } = await chatPair(t, { resume: { keep: '500ms' } });
    fake.always(play.ok());
    const { streamId } = await (await ask(t, gw)).rest();
    await (await again(t, gw, streamId)).rest();
    await until(async () => (await figures(gw)).ended === 0, 'it to be forgotten');
    assert.equal((await refused(again(t, gw, streamId))).status, 404);
    assert.equal((await figures(gw)).bytes, 0);

    const often = await (await ask(t, gw)).rest();
    const read = () => request(gw, { path: `/v1/chatmux/streams/${often.streamId}` });
    assert.equal((await read()).status, 200);
    await until(async () => (await read()).status === 404, 'it to be forgotten, however often it is read', 2000);
});

// ---- the end of the process ----------------------------------------------------------------------------------------

scenario('SIGTERM: what is followed finishes, what nobody follows ends at once', async (t) => {
    const { fake, gw } = await chatPair(t);
    fake.always(play.ok({ pieces: Array.from({ length: 20 }, (_, i) => `${i} `), gapMs: 20 }));
    const followed = await (await ask(t, gw)).take(2);
    fake.always(play.hangAfter(['x']));
    const left = await (await ask(t, gw)).take(2);
    const hanging = fake.last;
    left.vanish();
    await until(async () => (await gw.metrics()).get('chatmux_client_disconnects_total{phase="middle"}') === 1, 'the client to have left');
    gw.signal('SIGTERM');
    await until(() => hanging.isGone, 'the upstream nobody listens to to be closed', 1500);
    await followed.rest();
    assert.ok(followed.clean);
    assert.match(texts(followed.seen), /19 $/);
    await gw.waitExit(3000);
    assert.equal((await gw.accessLine(left.head.headers['x-request-id'])).outcome, 'client_gone');
});

scenario('at drain_timeout a kept stream ends like any other: with an error', async (t) => {
    const fake = await openai.startFakeOpenai(t, { keys: ['sk-up-1'] });
    const gw = await startGateway(t, { config: { server: { drain_timeout: '200ms' }, ...BROKEN, 'provider up': openai.providerFor(fake) } });
    fake.always(play.hangAfter(['x']));
    const followed = await (await ask(t, gw)).take(2);
    gw.signal('SIGTERM');
    await followed.rest();
    assert.equal(followed.clean, false);
    assert.equal(JSON.parse(followed.seen.at(-1).data).error.code, 'shutting_down');
    await gw.waitExit(5000);
});
