// The fault matrix: what a client of each dialect sees of each fault in each phase of an answer. Two accounts; the first meets the fault.
//   next    the second account answers, and nothing of the first shows
//   whole   the answer as it is: a finish reason and a clean end are enough, as some servers send no [DONE]
//   error   the dialect's error inside the stream, behind what was sent, and never a clean end
import assert from 'node:assert/strict';
import http from 'node:http';
import { CLIENT_KEY, scenario, startGateway } from '../lib/gateway.mjs';
import { ChunkWriter, completion, errorBody, play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const ERROR = errorBody('The server is overloaded', { type: 'server_error', code: 'overloaded' });
const HTML = '<!doctype html><title>Sign in</title>';

// ---- phases: what the platform has sent before the fault

/** A streamed answer up to the phase, then the fault's own doing. */
const streamed = (phase, fault) => async (rec) => {
    const w = new ChunkWriter(rec.json.model, rec.json.stream_options?.include_usage === true);
    rec.res.writeHead(200, { 'content-type': 'text/event-stream' });
    rec.res.flushHeaders();
    const said = { 'after headers': '', 'before the first token': w.role() + ': ping\n\n', 'mid-stream': w.role() + w.text('Bl') + w.text('ue'), 'at the end': w.role() + w.text('Blue') + w.delta({}, 'stop') }[phase];
    rec.res.write(said);
    await new Promise((done) => setTimeout(done, 30));
    fault(rec);
};
const whole = (phase, fault) => async (rec) => {
    const body = JSON.stringify(completion(rec.json.model, 'Blue'));
    const n = { 'after headers': 0, 'mid-stream': 60, 'at the end': body.length - 1 }[phase];
    rec.res.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
    rec.res.flushHeaders();
    rec.res.write(body.slice(0, n));
    await new Promise((done) => setTimeout(done, 30));
    fault(rec);
};

const FAULTS = {
    cut: { before: play.cutBeforeHead(), then: (rec) => rec.res.socket.destroy() },
    hang: { before: play.hang(), then: () => {} },
    garbage: { before: play.garbage(), then: (rec) => rec.res.end('\x00\x01 what is this {{{\n\ndata: {"choices":[{"del\n\n') },
    'an error': { before: play.error(500, 'oops', { type: 'server_error' }), then: (rec) => rec.res.end(`data: ${ERROR}\n\n`) },
    HTML: { before: play.html(200), then: (rec) => rec.res.end(HTML) },
    'a clean end': { before: play.status(200, ''), then: (rec) => rec.res.end() },
};

/** fault × phase -> outcome, for streams. */
const STREAMED = {
    //                  before headers  after headers  before the first token  mid-stream  at the end
    cut:            ['next',         'next',        'next',                 'error',    'error'],
    hang:           ['next',         'next',        'next',                 'error',    'error'],
    garbage:        ['next',         'next',        'next',                 'error',    'error'],
    'an error':     ['next',         'next',        'next',                 'error',    'error'],
    HTML:           ['next',         'next',        'next',                 'error',    'whole'],
    'a clean end':  ['next',         'next',        'next',                 'error',    'whole'],
};
const PHASES = ['before headers', 'after headers', 'before the first token', 'mid-stream', 'at the end'];

/** The same for whole answers: nothing has gone to the client before all is there. */
const WHOLE = {
    cut: { 'before headers': 'next', 'after headers': 'next', 'mid-stream': 'next', 'at the end': 'next' },
    hang: { 'before headers': 'next', 'after headers': 'next', 'mid-stream': 'next', 'at the end': 'next' },
    garbage: { 'before headers': 'next' },
    'an error': { 'before headers': 'next' },
    HTML: { 'before headers': 'next' },
    'a clean end': { 'before headers': 'next' },
};

// ---- surfaces: how each dialect asks, answers and fails

const ask = 'Name a colour.';
const sse = (text) =>
    text
        .split(/\r?\n\r?\n/)
        .filter((block) => /^data: /m.test(block))
        .map((block) => ({ event: block.match(/^event: (.*)$/m)?.[1], data: block.match(/^data: (.*)$/m)[1] }));
const json = (events) => events.filter((e) => e.data !== '[DONE]').map((e) => JSON.parse(e.data));

const SURFACES = {
    'chat/completions': {
        path: () => '/v1/chat/completions',
        body: (stream) => ({ model: 'm1', stream, messages: [{ role: 'user', content: ask }] }),
        text: (whole) => whole.choices[0].message.content,
        streamedText: (events) => json(events).map((e) => e.choices?.[0]?.delta.content ?? '').join(''),
        isDone: (events) => events.at(-1)?.data === '[DONE]',
        isError: (events) => json(events).at(-1)?.error?.message.length > 0,
    },
    responses: {
        path: () => '/v1/responses',
        body: (stream) => ({ model: 'm1', stream, input: ask }),
        text: (whole) => whole.output[0].content[0].text,
        streamedText: (events) => json(events).map((e) => (e.type === 'response.output_text.delta' ? e.delta : '')).join(''),
        isDone: (events) => events.at(-1)?.event === 'response.completed',
        isError: (events) => events.at(-2)?.event === 'error' && json(events).at(-2).message.length > 0 && json(events).at(-1).response.status === 'failed',
    },
    messages: {
        path: () => '/v1/messages',
        body: (stream) => ({ model: 'm1', stream, max_tokens: 100, messages: [{ role: 'user', content: ask }] }),
        text: (whole) => whole.content.map((c) => c.text).join(''),
        streamedText: (events) => json(events).map((e) => e.delta?.text ?? '').join(''),
        isDone: (events) => events.at(-1)?.event === 'message_stop',
        isError: (events) => events.at(-1)?.event === 'error' && json(events).at(-1).error.message.length > 0,
    },
    generateContent: {
        path: (stream) => `/v1beta/models/m1:${stream ? 'streamGenerateContent?alt=sse' : 'generateContent'}`,
        body: () => ({ contents: [{ parts: [{ text: ask }] }] }),
        text: (whole) => whole.candidates[0].content.parts.map((p) => p.text).join(''),
        streamedText: (events) => json(events).map((e) => e.candidates?.[0].content.parts.map((p) => p.text).join('') ?? '').join(''),
        isDone: (events) => json(events).at(-1)?.candidates?.[0].finishReason === 'STOP',
        isError: (events) => json(events).at(-1)?.error?.message.length > 0,
    },
};

/** {status, text, clean}: clean = the message was complete by its framing. */
function post(gw, path, body) {
    return new Promise((done) => {
        const req = http.request(`${gw.url}${path}`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${CLIENT_KEY}` }, agent: false }, (res) => {
            let text = '';
            const end = () => done({ status: res.statusCode, headers: res.headers, text, clean: res.complete });
            res.setEncoding('utf8').on('data', (piece) => (text += piece)).on('end', end).on('error', end);
        });
        req.on('error', (error) => done({ status: 0, text: String(error), clean: false }));
        req.end(JSON.stringify(body));
    });
}

async function check(gw, fake, surface, stream, fault, phase, outcome) {
    const { before, then } = FAULTS[fault];
    const length = fake.requests.length;
    fake.next(phase === 'before headers' ? before : (stream ? streamed : whole)(phase, then));
    const r = await post(gw, surface.path(stream), surface.body(stream));
    const what = `${fault} ${phase}: ${r.status} ${r.text.slice(0, 600)}`;
    assert.equal(r.status, 200, what);
    const events = stream ? sse(r.text) : null;
    if (outcome === 'next') {
        assert.ok(r.clean, what);
        assert.equal(stream ? surface.streamedText(events) : surface.text(JSON.parse(r.text)), 'Hello from upstream.', what);
        if (stream) assert.ok(surface.isDone(events), what);
        assert.equal(r.headers['x-chatmux-attempts'], '2', what);
        const [first, second] = fake.requests.slice(length);
        assert.notEqual(first.key, second.key, what);
    } else if (outcome === 'whole') {
        assert.ok(r.clean, what);
        assert.equal(surface.streamedText(events), 'Blue', what);
    } else {
        assert.ok(!r.clean, `a clean end of ${what}`);
        assert.ok(surface.isError(events), what);
        assert.ok(!surface.isDone(events), what);
        assert.equal(surface.streamedText(events), 'Blue', what);
        assert.equal(fake.requests.length, length + 1, `repeated: ${what}`);
    }
}

for (const [name, surface] of Object.entries(SURFACES))
    for (const fault of Object.keys(STREAMED))
        scenario(`${name}: ${fault}, in every phase`, { timeout: 60_000 }, async (t) => {
            const fake = await startFakeOpenai(t, { keys: ['sk-up-1', 'sk-up-2'], strict: false });
            // Accounts that failed must be fit again for the next cell: nothing of what they did is held against them.
            const gw = await startGateway(t, {
                config: { retry: { retries: 0 }, upstream: { first_token_timeout: '700ms', idle_timeout: '700ms', response_timeout: '700ms', breaker_rate: 0 }, 'provider up': providerFor(fake), auth: { admin_secret: 'admin-secret-4711' } },
            });
            const reset = async () => {
                for (const id of [1, 2]) await fetch(`${gw.url}/admin/api/credentials/${id}/reset`, { method: 'POST', headers: { authorization: 'Bearer admin-secret-4711' } });
            };
            for (const [i, phase] of PHASES.entries()) {
                await reset();
                await check(gw, fake, surface, true, fault, phase, STREAMED[fault][i]);
            }
            for (const [phase, outcome] of Object.entries(WHOLE[fault])) {
                await reset();
                await check(gw, fake, surface, false, fault, phase, outcome);
            }
        });
