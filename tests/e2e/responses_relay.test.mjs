// The Responses API over an upstream that speaks it: bytes as they came, and responses that only the account that made them knows.
import assert from 'node:assert/strict';
import http from 'node:http';
import OpenAI from 'openai';
import { CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { play as chat, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { play, startFakeResponses } from '../lib/fake_responses.mjs';
import { checkEvents, readEvents } from '../lib/responses_order.mjs';

const OTHER_KEY = 'sk-test-other-key-4712';

async function start(t, { provider, config, fakeOptions } = {}) {
    const fake = await startFakeResponses(t, fakeOptions);
    const gw = await startGateway(t, {
        config: { auth: { keys: [CLIENT_KEY, OTHER_KEY] }, ...config, 'provider up': { type: 'openai', base_url: fake.base, credentials: fake.keys, models: ['m1', 'alias=m2'], 'x.responses': 'yes', ...provider } },
    });
    return { fake, gw, sdk: (apiKey = CLIENT_KEY) => new OpenAI({ baseURL: gw.base, apiKey, maxRetries: 0 }) };
}

/** A stream to its end, whichever that is. */
function said(gw, body) {
    return new Promise((done) => {
        let text = '';
        const req = http.request(`${gw.base}/responses`, { method: 'POST', headers: { authorization: `Bearer ${CLIENT_KEY}`, 'content-type': 'application/json' }, agent: false }, (res) => {
            const end = () => done({ text, clean: res.complete });
            res.setEncoding('utf8').on('data', (piece) => (text += piece)).on('end', end).on('error', end);
        });
        req.end(JSON.stringify(body));
    });
}

const BODY = '{ "input" : [ {"role":"user","content":"Gr\\u00fc\\u00dfe"} ],\n "temperature":1.0e0, "model":"m1", "store":true }';

scenario('bytes both ways, whole and streamed, with only the model’s name replaced', async (t) => {
    const { fake, gw } = await start(t);
    const whole = await request(gw, { path: '/v1/responses', body: BODY, headers: { 'content-type': 'application/json', 'openai-beta': 'x=1' } });
    assert.equal(whole.status, 200);
    assert.equal(fake.last.body.toString(), BODY);
    assert.equal(whole.text, fake.last.said);
    assert.match(whole.text, /"created_at" : 1790000000.0e0.*unknown_member/s);

    const renamed = await request(gw, { path: '/v1/responses', body: BODY.replace('"m1"', '"alias"').replace('"store":true', '"stream":true') });
    assert.equal(fake.last.body.toString(), BODY.replace('"m1"', '"m2"').replace('"store":true', '"stream":true'));
    assert.equal(renamed.text, fake.last.said);
    assert.equal(checkEvents(readEvents(renamed.text)).text, 'Héllo.');
});

scenario('what an upstream made goes on with the account that made it, and belongs to the key that asked', async (t) => {
    const { fake, gw, sdk } = await start(t);
    const made = [];
    for (let i = 0; i < 4; i++) made.push({ r: await sdk().responses.create({ model: 'm1', input: `question ${i}` }), key: fake.last.key });
    assert.equal(new Set(made.map((m) => m.key)).size, 2, 'two accounts took turns');
    await gw.restart();
    for (const { r, key } of made) {
        const next = await sdk().responses.stream({ model: 'alias', input: 'and then', previous_response_id: r.id }).finalResponse();
        assert.equal(fake.last.key, key);
        assert.equal(fake.last.json.previous_response_id, r.id);
        assert.equal(next.output_text, 'Héllo.');
        assert.deepEqual(await sdk().responses.retrieve(r.id), r);
        const items = await sdk().responses.inputItems.list(r.id, { order: 'asc', limit: 5 });
        assert.equal(fake.last.url, `/v1/responses/${r.id}/input_items?order=asc&limit=5`);
        assert.match(items.data[0].content[0].text, /question/);
        assert.equal(fake.last.key, key);
    }
    const asked = fake.requests.length;
    const [{ r }] = made;
    const bob = sdk(OTHER_KEY).responses;
    for (const name of ['retrieve', 'delete', 'cancel']) await assert.rejects(bob[name](r.id), (e) => e.status === 404);
    await assert.rejects(bob.create({ model: 'm1', input: 'x', previous_response_id: r.id }), (e) => e.code === 'previous_response_not_found');
    await assert.rejects(sdk().responses.create({ model: 'm1', input: 'x', previous_response_id: 'resp_nobody' }), (e) => e.code === 'previous_response_not_found');
    assert.equal(fake.requests.length, asked, 'the upstream hears nothing of it');
    await sdk().responses.delete(r.id);
    assert.equal(fake.last.method, 'DELETE');
    assert.equal(fake.kept.has(r.id), false);
    const unkept = await sdk().responses.create({ model: 'm1', input: 'x', store: false });
    await assert.rejects(sdk().responses.retrieve(unkept.id), (e) => e.status === 404);
});

scenario('encrypted reasoning goes back to the account that made it', async (t) => {
    const { fake, gw, sdk } = await start(t);
    fake.behave = play.sealed();
    const ask = { model: 'm1', include: ['reasoning.encrypted_content'], store: false };
    for (const stream of [false, true])
        for (let i = 0; i < 3; i++) {
            const input = [{ role: 'user', content: `question ${i} ${stream}` }];
            const one = stream ? (await sdk().responses.stream({ ...ask, input }).finalResponse()) : await sdk().responses.create({ ...ask, input });
            const { key } = fake.last;
            if (i === 2) await gw.restart();
            await sdk().responses.create({ model: 'm1', input: 'something else', store: false });
            const next = await sdk().responses.create({ ...ask, input: [{ role: 'user', content: 'edited' }, ...one.output, { role: 'user', content: 'and then' }] });
            assert.equal(next.status, 'completed');
            assert.equal(fake.last.key, key);
        }
    const other = await sdk().responses.create({ ...ask, input: [{ type: 'reasoning', id: 'rs_nobody', summary: [], encrypted_content: 'sealed for sk-up-1' }, { role: 'user', content: 'x' }] }).catch((e) => e);
    assert.ok(other.status === 'completed' || other.code === 'invalid_encrypted_content', 'what is unknown is the upstream’s business');
    fake.refusals.length = 0;
});

scenario('own responses and those of an upstream are never mixed', async (t) => {
    const other = await startFakeOpenai(t);
    const { fake, sdk } = await start(t, { config: { 'provider chat': providerFor(other, { credentials: other.keys.slice(0, 1), models: ['c1'] }) } });
    other.always(chat.ok({ text: 'From the chat.' }));
    const own = await sdk().responses.create({ model: 'c1', input: 'Hi' });
    assert.match(own.id, /^resp_cm_/);
    const theirs = await sdk().responses.create({ model: 'm1', input: 'Hi' });
    await assert.rejects(sdk().responses.create({ model: 'c1', input: 'x', previous_response_id: theirs.id }), (e) => e.status === 400);
    const cancelled = await sdk().responses.cancel(own.id).catch((e) => e);
    assert.equal(cancelled.status, 400);
    assert.ok(fake.requests.every((r) => !r.url.includes('resp_cm_')));
});

scenario('usage is read from the last event, and failures from where they stand', async (t) => {
    const { fake, gw, sdk } = await start(t, { config: { retry: { retries: 0, max_wait: 0 }, upstream: { breaker_rate: 0 } } });
    fake.next(play.ok({ status: 'incomplete', text: 'half' }));
    const half = await sdk().responses.stream({ model: 'm1', input: 'x' }).finalResponse();
    assert.deepEqual([half.status, half.usage.output_tokens], ['incomplete', 9]);
    const metrics = await gw.metrics();
    assert.ok([...metrics].some(([name, n]) => /tokens/.test(name) && n >= 9), 'it was counted');

    for (const how of ['both', 'event', 'failed']) { // before anything was said the other account answers
        fake.next(play.failed({ how }));
        const r = await request(gw, { path: '/v1/responses', body: { model: 'm1', input: 'x', stream: true } });
        assert.equal(checkEvents(readEvents(r.text)).text, 'Héllo.', how);
        assert.equal(r.headers['x-chatmux-attempts'], '2');
    }
});

scenario('whole answers that fail, and refusals in the upstream’s own words', async (t) => {
    const { fake, sdk } = await start(t, { config: { retry: { retries: 0, max_wait: 0 } }, fakeOptions: { strict: false } });
    fake.next(play.failed({}));
    assert.equal((await sdk().responses.create({ model: 'm1', input: 'x' })).output_text, 'Héllo.');
    fake.next(play.error(400, 'Unknown parameter.', { param: 'zzz', code: 'unknown_parameter' }));
    await assert.rejects(sdk().responses.create({ model: 'm1', input: 'x' }), (e) => e.status === 400 && e.param === 'zzz' && e.code === 'unknown_parameter');
});

scenario('a stream that fails in its middle ends in error and response.failed, numbered on', async (t) => {
    const { fake, sdk } = await start(t, { config: { retry: { retries: 0, max_wait: 0 }, upstream: { breaker_rate: 0 } }, provider: { credentials: 'sk-up-1' } });
    for (const behave of [play.cutAfter(5), play.failed({ after: 3 }), play.failed({ after: 3, how: 'failed' })]) {
        fake.next(behave);
        const events = [];
        await assert.rejects(async () => {
            for await (const e of await sdk().responses.create({ model: 'm1', input: 'x', stream: true })) events.push(e);
        });
        const { types, response } = checkEvents(events);
        assert.deepEqual(types.slice(4), ['response.output_text.delta', 'error', 'response.failed']);
        assert.equal(response.id, events[0].response.id);
        assert.deepEqual(response.unknown_member, { kept: true });
    }
});

const FAULTS = {
    cut: (rec) => rec.res.socket.destroy(),
    hang: () => {},
    garbage: (rec) => rec.res.end('\x00\x01 what is this {{{\n\ndata: {"type":"respo\n\n'),
    'an error': (rec) => rec.res.end('data: {"error":{"message":"overloaded","type":"server_error","code":"overloaded"}}\n\n'),
    HTML: (rec) => rec.res.end('<!doctype html><title>Sign in</title>'),
    'a clean end': (rec) => rec.res.end(),
};

for (const [fault, then] of Object.entries(FAULTS))
    scenario(`relayed: ${fault}, in every phase`, async (t) => {
        const clocks = { first_token_timeout: '700ms', idle_timeout: '700ms', response_timeout: '700ms', breaker_rate: 0 };
        const { fake, gw } = await start(t, { config: { retry: { retries: 0 }, upstream: clocks, auth: { keys: [CLIENT_KEY], admin_secret: 'admin-secret-4711' } } });
        for (const [phase, outcome] of [['after headers', 'next'], ['before the first token', 'next'], ['mid-stream', 'error'], ['at the end', 'error']]) {
            for (const id of [1, 2]) await fetch(`${gw.url}/admin/api/credentials/${id}/reset`, { method: 'POST', headers: { authorization: 'Bearer admin-secret-4711' } });
            const before = fake.requests.length;
            fake.next(play.fault(phase, then));
            const { text, clean } = await said(gw, { model: 'm1', input: 'x', stream: true });
            const { types, text: answer } = checkEvents(readEvents(text));
            assert.equal(clean, outcome === 'next', `${phase}: ${text}`);
            assert.equal(fake.requests.length - before, outcome === 'next' ? 2 : 1, phase);
            if (outcome === 'next') assert.equal(answer, 'Héllo.');
            else assert.deepEqual(types.slice(-2), ['error', 'response.failed'], phase);
        }
    });

scenario('tokens are counted by the upstream for this dialect, and here for others', async (t) => {
    const { fake, gw, sdk } = await start(t);
    assert.equal((await sdk().responses.inputTokens.count({ model: 'alias', input: 'Hi' })).input_tokens, 4711);
    assert.deepEqual([fake.last.url, fake.last.json], ['/v1/responses/input_tokens', { model: 'm2', input: 'Hi' }]);
    const counted = await request(gw, { path: '/v1/messages/count_tokens', body: { model: 'm1', messages: [{ role: 'user', content: 'Hi' }] } });
    assert.equal(counted.status, 200);
    assert.ok(counted.json.input_tokens < 20);
    assert.equal(fake.requests.length, 1);
});

scenario('x.responses = no: made by chat', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake, { credentials: 'sk-up-1', 'x.responses': 'no' }) } });
    const r = await request(gw, { path: '/v1/responses', body: { model: 'm1', input: 'x' } });
    assert.match(r.json.id, /^resp_cm_/);
    assert.ok(fake.last.json.messages);
});
