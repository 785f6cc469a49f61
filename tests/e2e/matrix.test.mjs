// The fault matrix: what a client of each dialect sees of each fault in each phase of an answer. Two accounts; the first meets the fault.
//   next    the second account answers, and nothing of the first shows
//   whole   the answer as it is: a finish reason and a clean end are enough, as some servers send no [DONE]
//   error   the dialect's error inside the stream, behind what was sent, and never a clean end
import assert from 'node:assert/strict';
import { scenario, startGateway } from '../lib/gateway.mjs';
import { ChunkWriter, completion, errorBody, play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { SURFACES, post, sse } from '../lib/surfaces.mjs';

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
    rec.res.writeHead(200, { 'content-type': 'application/json' });
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
    // before headers only: what comes later has its head already
    'an error with status 200': { before: play.errorIn200() },
    'another media type': { before: play.status(200, 'Service is busy, try again later.', { 'content-type': 'text/plain' }) },
    'HTML called JSON': { before: play.status(200, HTML) },
    'HTML called a stream': { before: play.status(200, HTML, { 'content-type': 'text/event-stream' }) },
    'JSON that is no answer': { before: play.status(200, '{"ok":true}') },
    'a redirect': { before: play.status(302, '', { location: 'https://example.com/login' }) },
    'an unknown path': { before: play.status(404, HTML, { 'content-type': 'text/html' }) },
    'a gateway in front of it': { before: play.html(502) },
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
    'an error with status 200': ['next'],
    'another media type':       ['next'],
    'HTML called JSON':         ['next'],
    'HTML called a stream':     ['next'],
    'JSON that is no answer':   ['next'],
    'a redirect':               ['next'],
    'an unknown path':          ['next'],
    'a gateway in front of it': ['next'],
};
const PHASES = ['before headers', 'after headers', 'before the first token', 'mid-stream', 'at the end'];

/** The same for whole answers: nothing has gone to the client before all is there, so there is no other outcome; there is no first token either. */
const EVERY_PHASE = ['next', 'next', null, 'next', 'next'];
const WHOLE = Object.fromEntries(Object.entries(STREAMED).map(([fault, phases]) => [fault, EVERY_PHASE.slice(0, phases.length)]));

async function check(gw, fake, surface, stream, fault, phase, outcome) {
    const { before, then } = FAULTS[fault];
    const length = fake.requests.length;
    fake.next(phase === 'before headers' ? before : (stream ? streamed : whole)(phase, then));
    const r = await post(gw, surface.path(stream), surface.body(stream));
    const what = `${surface.name}, ${stream ? 'streamed' : 'whole'}: ${fault} ${phase}: ${r.status} ${r.text.slice(0, 600)}`;
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

const inEveryPhase = Object.keys(STREAMED).filter((fault) => STREAMED[fault].length > 1);
const atOnce = Object.keys(STREAMED).filter((fault) => STREAMED[fault].length === 1);

async function allPhases(t, name, surface, faults) {
    const fake = await startFakeOpenai(t, { keys: ['sk-up-1', 'sk-up-2'], strict: false });
    // Accounts that failed must be fit again for the next cell: nothing of what they did is held against them.
    const gw = await startGateway(t, {
        config: { retry: { retries: 0 }, upstream: { first_token_timeout: '700ms', idle_timeout: '700ms', response_timeout: '700ms', breaker_rate: 0 }, 'provider up': providerFor(fake, surface.provider), auth: { admin_secret: 'admin-secret-4711' } },
    });
    const reset = async () => {
        for (const id of [1, 2]) await fetch(`${gw.url}/admin/api/credentials/${id}/reset`, { method: 'POST', headers: { authorization: 'Bearer admin-secret-4711' } });
    };
    for (const fault of faults)
        for (const [stream, table] of [[true, STREAMED], [false, WHOLE]])
            for (const [i, phase] of PHASES.entries()) {
                if (!table[fault][i]) continue;
                await reset();
                await check(gw, fake, { name, ...surface }, stream, fault, phase, table[fault][i]);
            }
}

// The surfaces side by side: most of the time is spent waiting for clocks.
for (const [title, faults] of [...inEveryPhase.map((fault) => [`${fault}, in every phase`, [fault]]), ['answers that are none', atOnce]])
    scenario(title, { timeout: 60_000 }, (t) => Promise.all(Object.entries(SURFACES).map(([name, surface]) => allPhases(t, name, surface, faults))));
