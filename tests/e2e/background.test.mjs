// Jobs of the Responses API: background: true, over platforms of every kind, with OpenAI's own SDK and with clients that vanish.
import assert from 'node:assert/strict';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { CLIENT_KEY, atEnd, request, sanitized, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawRequest } from '../lib/raw.mjs';
import { openEvents } from '../lib/events.mjs';
import { checkEvents } from '../lib/responses_order.mjs';
import * as openai from '../lib/fake_openai.mjs';
import * as anthropic from '../lib/fake_anthropic.mjs';
import * as gemini from '../lib/fake_gemini.mjs';
import * as responses from '../lib/fake_responses.mjs';
import * as hix from '../lib/fake_hix.mjs';

const { play } = openai;
const OTHER_KEY = 'sk-test-client-key-0815';
const BROKEN = { retry: { retries: 0 } };

async function pair(t, { provider = {}, keys = ['sk-up-1'], ...config } = {}) {
    const fake = await openai.startFakeOpenai(t, { keys });
    const gw = await startGateway(t, {
        config: { server: { drain_timeout: '300ms' }, ...BROKEN, ...config, auth: { keys: [CLIENT_KEY, OTHER_KEY] }, 'provider up': openai.providerFor(fake, { credentials: keys, ...provider }) },
    });
    return { fake, gw, sdk: sdkFor(gw), other: sdkFor(gw, OTHER_KEY) };
}

const sdkFor = (gw, apiKey = CLIENT_KEY) => new OpenAI({ baseURL: gw.base, apiKey, maxRetries: 0 });
const JOB = { model: 'm1', input: 'Hi', background: true };
const ended = (sdk, id) => until(async () => {
    const r = await sdk.responses.retrieve(id);
    return !['queued', 'in_progress'].includes(r.status) && r;
}, 'the job to end');
const refused = (promise) => promise.then(() => assert.fail('it was served'), (error) => error);
const begin = (t, gw, model) => openEvents(t, gw, 'POST', '/v1/responses', { body: { ...JOB, model, stream: true } });
const again = (t, gw, id, after = null, more = {}) =>
    openEvents(t, gw, 'GET', `/v1/responses/${id}?stream=true${after === null ? '' : `&starting_after=${after}`}`, more);
const valuesOf = (events) => events.map((e) => {
    const value = JSON.parse(e.data);
    assert.equal(value.type, e.event);
    return value;
});
async function all(stream) {
    const events = [];
    for await (const e of stream) events.push(e);
    return events;
}

const UPSTREAMS = {
    openai: {
        model: 'm1',
        start: async (t) => {
            const fake = await openai.startFakeOpenai(t, { keys: ['sk-up-1'] });
            fake.always(play.ok({ pieces: ['One ', 'twö ', 'three.'], gapMs: 4 }));
            return openai.providerFor(fake);
        },
    },
    'openai, which speaks the dialect itself': {
        model: 'm1',
        only: true, // has no chat, with which what is kept here goes on
        start: async (t) => {
            const fake = await responses.startFakeResponses(t, {});
            fake.behave = responses.play.ok({ gapMs: 4 });
            return { type: 'openai', base_url: fake.base, credentials: fake.keys, models: ['m1'], 'x.responses': 'yes' };
        },
    },
    anthropic: {
        model: 'claude-sonnet-4-5',
        start: async (t) => {
            const fake = await anthropic.startFakeAnthropic(t, {});
            fake.always(anthropic.play.answer({ content: [{ type: 'text', text: 'A somewhat longer answer, in pieces.' }] }, { gapMs: 4 }));
            return anthropic.providerFor(fake);
        },
    },
    gemini: { model: 'gemini-2.5-flash', start: async (t) => gemini.providerFor(await gemini.startFakeGemini(t, {})) },
    hix: {
        model: 'gpt-4o',
        start: async (t) => {
            const fake = await hix.startFakeHix(t, {});
            fake.always(hix.say.answer({ pieces: ['Blue ', 'and ', 'green.'], reasoning: ['hm'], gapMs: 4 }));
            return { type: 'hix', base_url: fake.base, credentials: fake.sessions, max_inflight: 30 };
        },
    },
};

for (const [name, upstream] of Object.entries(UPSTREAMS))
    scenario(`over ${name}: a client killed at every event gets each event exactly once`, async (t) => {
        const gw = await startGateway(t, { config: { ...BROKEN, 'provider up': await upstream.start(t) } });
        const sdk = sdkFor(gw);
        const whole = await (await begin(t, gw, upstream.model)).rest();
        const wanted = checkEvents(valuesOf(whole.seen));
        assert.equal(wanted.response.status, 'completed');
        assert.equal(wanted.response.background, true);

        await Promise.all(whole.seen.map(async (_, at) => {
            const first = await (await begin(t, gw, upstream.model)).take(at + 1);
            const { id } = valuesOf(first.seen)[0].response;
            first.vanish();
            const second = await (await again(t, gw, id, at)).rest();
            assert.ok(second.clean);
            const { types, response } = checkEvents([...valuesOf(first.seen), ...valuesOf(second.seen)]);
            assert.deepEqual(types, wanted.types, `killed after ${at}`);
            assert.equal(response.id, id);
            assert.deepEqual(await sdk.responses.retrieve(id).then((r) => r.output), response.output);
        }));

        // the SDK: leaves in the middle, comes back by number, and once more from the beginning
        const stream = await sdk.responses.create({ ...JOB, model: upstream.model, stream: true });
        const events = [];
        for await (const e of stream) {
            events.push(e);
            if (e.type === 'response.output_text.delta') break; // closes the connection
        }
        const { id } = events[0].response;
        events.push(...(await all(await sdk.responses.retrieve(id, { stream: true, starting_after: events.at(-1).sequence_number }))));
        assert.deepEqual(checkEvents(events).types, wanted.types);
        assert.deepEqual((await all(await sdk.responses.retrieve(id, { stream: true }))).map((e) => e.type), wanted.types);
        const helped = await sdk.responses.stream({ response_id: id, starting_after: 2 }).finalResponse();
        assert.deepEqual([helped.id, helped.status], [id, 'completed']);
        if (upstream.only) return;
        // and it goes on like any other response
        const next = await sdk.responses.create({ model: upstream.model, input: 'And then?', previous_response_id: id });
        assert.equal(next.status, 'completed');
    });

scenario('over an upstream that speaks the dialect itself: our id, our numbers, and our words for failures', async (t) => {
    const fake = await responses.startFakeResponses(t, {});
    const gw = await startGateway(t, { config: { ...BROKEN, 'provider up': { type: 'openai', base_url: fake.base, credentials: fake.keys, models: ['m1'], 'x.responses': 'yes' } } });
    const sdk = sdkFor(gw);
    // what only such an upstream can do is done in the background, too
    const tool = { ...JOB, tools: [{ type: 'web_search' }], stream: true };
    const events = await all(await sdk.responses.create(tool));
    assert.deepEqual(fake.last.json, { model: 'm1', input: 'Hi', tools: [{ type: 'web_search' }], stream: true });
    const { response } = checkEvents(events);
    assert.match(response.id, /^resp_cm_/);
    assert.deepEqual([response.status, response.background, response.unknown_member], ['completed', true, { kept: true }]);
    assert.deepEqual(new Set(events.flatMap((e) => e.response?.id ?? [])), new Set([response.id]));
    const stored = await sdk.responses.retrieve(response.id);
    assert.deepEqual([stored.output, stored.usage], [response.output, response.usage]);
    assert.equal(gw.accessLines().filter((l) => l.tokens_out === 9).length, 1);

    for (const [behave, code, n] of [[responses.play.cutAfter(5), 'upstream_cut', 5], [responses.play.failed({ after: 4 }), undefined, 6], [responses.play.failed({ after: 0 }), undefined, 2]]) {
        fake.behave = behave;
        const told = await all(await sdk.responses.create({ ...JOB, stream: true }));
        assert.deepEqual(told.map((e) => e.sequence_number), told.map((_, i) => i));
        assert.deepEqual(told.slice(n).map((e) => e.type), ['error', 'response.failed'], JSON.stringify(told.map((e) => e.type)));
        const { id, error } = told.at(-1).response;
        assert.equal(id, told[0].response.id);
        if (code) assert.equal(error.code, code);
        const kept = await sdk.responses.retrieve(id);
        assert.deepEqual([kept.id, kept.status, kept.error], [id, 'failed', error]);
    }
    fake.behave = responses.play.ok({ pieces: Array.from({ length: 50 }, () => 'x'), gapMs: 50 });
    const follower = await (await begin(t, gw, 'm1')).take(6);
    const { id } = valuesOf(follower.seen)[0].response;
    assert.equal((await sdk.responses.cancel(id)).status, 'cancelled');
    const values = valuesOf((await follower.rest()).seen);
    assert.deepEqual(values.map((v) => v.sequence_number), values.map((_, i) => i));
    assert.deepEqual([values.at(-1).type, values.at(-1).response.id, values.at(-1).response.status], ['response.incomplete', id, 'cancelled']);
});

scenario('without a stream: answered at once, asked for later, settled once', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    fake.always(play.lockstep(['One ', 'two.']));
    const step = fake.fallback;
    const { data: job, response } = await sdk.responses.create(JOB).withResponse();
    assert.match(job.id, /^resp_cm_/);
    assert.ok(['queued', 'in_progress'].includes(job.status));
    assert.deepEqual([job.background, job.store, job.output, job.usage, job.error], [true, true, [], null, null]);
    await until(() => fake.last?.json, 'the upstream to be asked');
    const during = await sdk.responses.retrieve(job.id);
    assert.equal(during.status, 'in_progress');
    assert.deepEqual({ ...during, status: '' }, { ...job, status: '' });
    step.confirm();
    step.confirm();
    const done = await ended(sdk, job.id);
    assert.equal(done.status, 'completed');
    assert.equal(done.output_text, 'One two.');
    assert.equal(done.usage.output_tokens, 7);
    const line = await gw.accessLine(response.headers.get('x-request-id'));
    assert.deepEqual([line.outcome, line.tokens_out], ['ok', 7]);
    assert.equal(gw.accessLines().filter((l) => l.tokens_out > 0).length, 1, 'settled twice');
    // it was no stream, and can be read as one for a while
    const { types } = checkEvents(await all(await sdk.responses.retrieve(job.id, { stream: true })));
    assert.equal(types.at(-1), 'response.completed');
    assert.equal(fake.requests.length, 1);
    assert.equal('background' in fake.last.json, false);
});

scenario('cancel: within a second, more than once, and for those who follow', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    fake.always(play.hangAfter(['half ']));
    const follower = await (await begin(t, gw, 'm1')).take(5);
    const { id } = valuesOf(follower.seen)[0].response;
    const asked = performance.now();
    const cancelled = await sdk.responses.cancel(id);
    await until(() => fake.last.isGone, 'the upstream to be closed', 1500);
    assert.ok(fake.last.goneAt - asked < 1000);
    assert.deepEqual([cancelled.id, cancelled.status, cancelled.error], [id, 'cancelled', null]);
    await follower.rest();
    assert.ok(follower.clean);
    const values = valuesOf(follower.seen);
    assert.deepEqual(values.map((v) => v.sequence_number), values.map((_, i) => i));
    assert.deepEqual([values.at(-1).type, values.at(-1).response.status], ['response.incomplete', 'cancelled']);
    for (let i = 0; i < 2; i++) assert.equal((await sdk.responses.cancel(id)).status, 'cancelled');
    assert.equal((await sdk.responses.retrieve(id)).status, 'cancelled');
    // one that has ended stays what it is
    fake.always(play.ok());
    const done = await ended(sdk, (await sdk.responses.create(JOB)).id);
    assert.equal((await sdk.responses.cancel(done.id)).status, 'completed');
    // one that was waited for cannot be cancelled, or read again as a stream
    const plain = await sdk.responses.create({ model: 'm1', input: 'Hi' });
    assert.equal((await refused(sdk.responses.cancel(plain.id))).status, 400);
    assert.equal((await refused(sdk.responses.retrieve(plain.id, { stream: true }))).status, 400);
    // one that nobody works on yet
    fake.always(play.hang());
    const waiting = await sdk.responses.create(JOB);
    assert.equal((await sdk.responses.cancel(waiting.id)).status, 'cancelled');
    const told = await all(await sdk.responses.retrieve(waiting.id, { stream: true }));
    assert.deepEqual(told.map((e) => [e.type, e.sequence_number]), [['response.created', 0], ['response.in_progress', 1], ['response.incomplete', 2]]);
});

scenario('DELETE stops a job and forgets it', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    fake.always(play.hangAfter(['half ']));
    const { id } = await sdk.responses.create(JOB);
    await until(() => fake.last?.json, 'the upstream to be asked');
    await sdk.responses.delete(id);
    await until(() => fake.last.isGone, 'the upstream to be closed', 1500);
    assert.equal((await refused(sdk.responses.retrieve(id))).status, 404);
    assert.equal((await refused(sdk.responses.retrieve(id, { stream: true }))).status, 404);
    assert.equal((await refused(sdk.responses.cancel(id))).status, 404);
});

scenario('a job whose upstream breaks off ends failed, whoever asks and whenever', async (t) => {
    const { fake, gw, sdk } = await pair(t);
    fake.always(play.cutMidStream({ pieces: ['half '] }));
    const stream = await all(await sdk.responses.create({ ...JOB, stream: true }));
    const last = stream.at(-1);
    assert.equal(last.type, 'response.failed');
    assert.equal(last.response.error.code, 'upstream_cut');
    assert.deepEqual(stream.map((e) => e.sequence_number), stream.map((_, i) => i));
    const { id } = stream[0].response;
    const stored = await sdk.responses.retrieve(id);
    assert.deepEqual([stored.status, stored.error.code], ['failed', 'upstream_cut']);
    assert.deepEqual(await all(await sdk.responses.retrieve(id, { stream: true })), stream);
    // before anything was said
    fake.always(play.error(400, 'not like this', {}));
    const failed = await ended(sdk, (await sdk.responses.create(JOB)).id);
    assert.equal(failed.status, 'failed');
    assert.match(failed.error.message, /not like this/);
    const told = await all(await sdk.responses.retrieve(failed.id, { stream: true }));
    assert.deepEqual(told.map((e) => [e.type, e.sequence_number]), [['response.created', 0], ['response.in_progress', 1], ['error', 2], ['response.failed', 3]]);
    // and a failure that can be hidden is hidden
    const two = await pair(t, { keys: ['sk-bad', 'sk-good'] });
    two.fake.key('sk-bad', play.badKey());
    const good = await Promise.all(Array.from({ length: 3 }, async () => ended(two.sdk, (await two.sdk.responses.create(JOB)).id)));
    assert.deepEqual(good.map((r) => r.status), ['completed', 'completed', 'completed']);
});

scenario('a client that leaves before it was answered has no job', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(play.hangAfter(['x']));
    const body = JSON.stringify(JOB);
    // each leaves a little later than the one before: some before their body was read, some while it is stored, some behind the answer
    await Promise.all(Array.from({ length: 60 }, async (_, i) => {
        const raw = await connect(t, gw);
        raw.send(rawRequest('POST', '/v1/responses', { body }));
        await sleep(i / 3);
        raw.reset();
    }));
    await until(async () => {
        const figures = await gw.metrics();
        return figures.get('chatmux_kept_streams{state="running"}') === fake.requests.length && gw.accessLines().filter((l) => l.method === 'POST').length + fake.requests.length >= 55;
    }, 'every other to be over');
});

scenario('a job waits until an account is free, or no longer limited', async (t) => {
    const { fake, gw, sdk } = await pair(t, { retry: { retries: 0, max_wait: '50ms' }, provider: { max_inflight: 1 } });
    fake.always(play.ok({ pieces: ['One ', 'two.'], gapMs: 100 }));
    const jobs = await Promise.all([1, 2, 3].map(() => sdk.responses.create(JOB)));
    assert.equal((await refused(sdk.chat.completions.create({ model: 'm1', messages: [{ role: 'user', content: 'x' }] }))).status, 429); // who does not wait long
    assert.ok((await Promise.all(jobs.map((job) => sdk.responses.retrieve(job.id)))).some((r) => r.status === 'queued'));
    for (const { id } of jobs) assert.equal((await ended(sdk, id)).status, 'completed');
    fake.next(play.rateLimited(1));
    const limited = await ended(sdk, (await sdk.responses.create(JOB)).id);
    assert.equal(limited.status, 'completed');
    assert.equal(fake.requests.length, 5);
    // but not for ever
    const short = await pair(t, { resume: { job_wait: '300ms' } });
    short.fake.always(play.rateLimited(3));
    const failed = await ended(short.sdk, (await short.sdk.responses.create(JOB)).id);
    assert.deepEqual([failed.status, failed.error.code], ['failed', 'rate_limit_exceeded']);
});

scenario('killed in the middle: after the restart the job is failed', async (t) => {
    const { fake, gw, sdk: before } = await pair(t);
    fake.always(play.hangAfter(['half ']));
    const { id } = await before.responses.create(JOB);
    const streamed = await (await begin(t, gw, 'm1')).take(5);
    const ids = [id, valuesOf(streamed.seen)[0].response.id];
    await until(() => fake.requests.length === 2, 'both to run');
    await gw.restart({ how: 'SIGKILL' });
    const sdk = sdkFor(gw);
    for (const one of ids) {
        const r = await sdk.responses.retrieve(one);
        assert.equal(r.status, 'failed');
        assert.match(r.error.message, /gateway was stopped/);
        const gone = await refused(sdk.responses.retrieve(one, { stream: true }));
        assert.deepEqual([gone.status, gone.code], [410, 'events_expired']);
        assert.equal((await sdk.responses.cancel(one)).status, 'failed');
        assert.equal((await refused(sdk.responses.create({ model: 'm1', input: 'x', previous_response_id: one }))).status, 400);
    }
});

scenario('SIGTERM: a job is waited for; at drain_timeout it ends failed', async (t) => {
    const { fake, gw, sdk } = await pair(t, { server: { drain_timeout: '1200ms' } });
    fake.always(play.ok({ pieces: ['One ', 'two.'], gapMs: 60 }));
    const quick = await sdk.responses.create(JOB);
    await until(() => fake.requests.length === 1, 'it to run');
    fake.always(play.hangAfter(['half ']));
    const slow = await sdk.responses.create(JOB);
    await until(() => fake.requests.length === 2, 'both to run');
    await gw.restart();
    const after = sdkFor(gw);
    assert.equal((await after.responses.retrieve(quick.id)).status, 'completed');
    const cut = await after.responses.retrieve(slow.id);
    assert.deepEqual([cut.status, cut.error.code], ['failed', 'shutting_down']);
});

scenario('whose it is, and what cannot be', async (t) => {
    const { fake, gw, sdk, other } = await pair(t, { resume: { max_per_key: 3 } });
    fake.always(play.hangAfter(['half ']));
    const { id } = await sdk.responses.create(JOB);
    for (const ask of [() => other.responses.retrieve(id), () => other.responses.retrieve(id, { stream: true }), () => other.responses.cancel(id), () => other.responses.delete(id), () => other.responses.create({ model: 'm1', input: 'x', previous_response_id: id })])
        assert.ok([400, 404].includes((await refused(ask())).status));
    assert.equal((await sdk.responses.retrieve(id)).status, 'in_progress');
    assert.equal((await refused(again(t, gw, id, 1000))).status, 400);
    assert.equal((await refused(again(t, gw, id, 'x'))).status, 400);
    assert.equal((await refused(sdk.responses.create({ ...JOB, store: false }))).param, 'background');
    // not as a stream of the other kind either
    assert.equal((await request(gw, { path: `/v1/chatmux/streams/${id}` })).status, 404);
    assert.equal((await refused(sdk.responses.create({ model: 'm1', input: 'x', previous_response_id: id }))).status, 400);
    // places
    for (let i = 0; i < 2; i++) await sdk.responses.create(JOB);
    assert.equal((await refused(sdk.responses.create(JOB))).status, 429);
    assert.equal((await other.responses.create(JOB)).background, true);
});

scenario('a stream that is not in the background survives its client by the header', async (t) => {
    const { fake, gw } = await pair(t);
    fake.always(play.ok({ pieces: ['One ', 'two.'], gapMs: 10 }));
    const first = await openEvents(t, gw, 'POST', '/v1/responses', { body: { model: 'm1', input: 'Hi', stream: true }, headers: ['x-chatmux-resumable: 1'] });
    await first.take(4);
    first.vanish();
    const second = await (await openEvents(t, gw, 'GET', `/v1/chatmux/streams/${first.streamId}`, { headers: [`Last-Event-ID: ${first.lastId}`] })).rest();
    const { types } = checkEvents(valuesOf([...first.seen, ...second.seen]));
    assert.equal(types.at(-1), 'response.completed');
    // a job does by itself, and has no second id
    const job = await (await openEvents(t, gw, 'POST', '/v1/responses', { body: { ...JOB, stream: true }, headers: ['x-chatmux-resumable: 1'] })).rest();
    assert.equal(job.streamId, undefined);
    const { response } = checkEvents(valuesOf(job.seen));
    assert.deepEqual((await (await again(t, gw, response.id, 3)).rest()).seen, job.seen.slice(4));
    assert.equal((await gw.metrics()).get('chatmux_kept_streams{state="running"}'), 0);
});

scenario('a job may lose events, and never its result', async (t) => {
    const { fake, gw, sdk } = await pair(t, { resume: { max_bytes: '256k' } });
    fake.always(play.big({ bytes: 1 << 20, piece: 4096 }));
    const done = await ended(sdk, (await sdk.responses.create(JOB)).id);
    assert.equal(done.status, 'completed');
    assert.equal(done.output_text.length, 1 << 20);
    const gone = await refused(sdk.responses.retrieve(done.id, { stream: true }));
    assert.deepEqual([gone.status, gone.code], [410, 'events_expired']);
});

scenario('who follows a job too slowly is cut off, and the job goes on', async (t) => {
    const { fake, gw, sdk } = await pair(t, { resume: { max_bytes: '1m' } });
    fake.always(play.big({ bytes: 12 << 20, piece: 16384 }));
    const follower = await (await begin(t, gw, 'm1')).take(1);
    const { id } = valuesOf(follower.seen)[0].response;
    follower.raw.stopReading();
    assert.equal((await ended(sdk, id)).output_text.length, 12 << 20);
    follower.raw.readOn();
    await follower.raw.closed;
    assert.ok(follower.raw.in.lastIndexOf('\r\n0\r\n\r\n') < 0, 'it looks like a whole stream');
});

scenario('a thousand jobs at once, in bounded memory', { timeout: 120_000 }, async (t) => {
    const N = sanitized ? 200 : 1000;
    const CAP = sanitized ? 2 << 20 : 8 << 20;
    const EACH = 64 << 10; // of a job besides its events: exchange, run, transfer, sockets
    const { fake, gw } = await pair(t, {
        resume: { max_total: CAP, max_per_key: N + 100 }, log: { level: 'warn', access: 'no' }, server: { max_lag: '0' }, upstream: { max_inflight: N + 100 },
    });
    let open = Promise.resolve();
    fake.always(async (rec) => {
        const w = new openai.ChunkWriter('m1', true);
        rec.res.writeHead(200, { 'content-type': 'text/event-stream' });
        rec.res.write(w.role() + w.text('begin '));
        await open;
        for (let i = 0; i < 60; i++) rec.res.write(w.text('z'.repeat(300)));
        rec.res.end(w.end());
    });
    const agent = new http.Agent({ keepAlive: true, maxSockets: 50 });
    atEnd(t, () => agent.destroy());
    const create = async () => (await request(gw, { path: '/v1/responses', body: JOB, agent })).json;
    const inBatches = async (n, fn) => {
        const results = [];
        for (let i = 0; i < n; i += 50) results.push(...(await Promise.all(Array.from({ length: Math.min(50, n - i) }, (_, k) => fn(i + k)))));
        return results;
    };
    const figure = async (name) => (await gw.metrics()).get(name);
    const idle = () => until(async () => (await figure('chatmux_kept_streams{state="running"}')) === 0, 'all jobs to end', 60_000);
    await inBatches(50, create);
    await idle(); // what grows once has grown

    let go;
    open = new Promise((done) => (go = done));
    const before = gw.rssBytes();
    const jobs = await inBatches(N, create);
    await until(() => fake.requests.length === N + 50, 'all of them to run', 30_000);
    assert.equal(await figure('chatmux_kept_streams{state="running"}'), N);
    const held = gw.rssBytes();
    let peak = held;
    const timer = setInterval(() => (peak = Math.max(peak, gw.rssBytes())), 20);
    go();
    await idle();
    clearInterval(timer);
    t.diagnostic(`${N} jobs: ${Math.round((held - before) / N / 1024)} KiB each while they run, ${Math.round((peak - before) / 1048576)} MiB in all at the peak`);
    if (!sanitized) {
        assert.ok(held - before < N * EACH, `${held - before} bytes for ${N} jobs`);
        assert.ok(peak - before < N * EACH + CAP + (8 << 20), `${peak - before} bytes at the peak`);
    }
    assert.ok((await figure('chatmux_kept_bytes')) <= CAP);
    assert.ok((await figure('chatmux_kept_events_evicted_total')) > 10 * N, 'the bound was not met');
    const results = await inBatches(N, async (i) => (await request(gw, { path: `/v1/responses/${jobs[i].id}`, agent })).json);
    assert.deepEqual([...new Set(results.map((r) => r.status))], ['completed']);
    assert.ok(results.every((r) => r.output[0].content[0].text.length === 6 + 60 * 300));
});
