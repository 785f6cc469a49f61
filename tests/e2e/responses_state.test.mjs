// Responses that are kept: conversations by previous_response_id over platforms that know nothing of it, and the routes of one response.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import OpenAI from 'openai';
import { CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const OTHER_KEY = 'sk-test-other-key-4712';

async function start(t, { provider, store, fakeOptions, ...more } = {}) {
    const fake = await startFakeOpenai(t, fakeOptions);
    const gw = await startGateway(t, {
        ...more,
        config: { store, auth: { keys: [CLIENT_KEY, OTHER_KEY] }, 'provider up': providerFor(fake, { models: ['m1', 'm2'], ...provider }) },
    });
    const sdk = (apiKey = CLIENT_KEY) => new OpenAI({ baseURL: gw.base, apiKey, maxRetries: 0 });
    return { fake, gw, sdk };
}

const roles = (rec) => rec.json.messages.map((m) => `${m.role}: ${m.content ?? m.tool_calls.map((c) => c.id)}`);
const asked = (text) => ({ type: 'message', status: 'completed', role: 'user', content: [{ type: 'input_text', text }] });

scenario('a conversation of several turns, streamed or not, on one account, and after a restart', async (t) => {
    const { fake, gw, sdk } = await start(t);
    fake.next(play.ok({ text: 'Hello.' }), play.ok({ pieces: ['Two ', 'times.'] }), play.ok({ text: 'Three.' }));
    const one = await sdk().responses.create({ model: 'm1', input: 'Hi', instructions: 'Be brief.' });
    assert.equal(one.store, true);
    const two = await sdk().responses.stream({ model: 'm1', input: [{ role: 'user', content: 'Again' }], previous_response_id: one.id }).finalResponse();
    assert.equal(two.previous_response_id, one.id);
    assert.deepEqual(roles(fake.last), ['user: Hi', 'assistant: Hello.', 'user: Again'], 'instructions are not inherited');
    await gw.restart();
    const three = await sdk().responses.create({ model: 'm2', input: 'Once more', previous_response_id: two.id, instructions: 'Be kind.' });
    assert.equal(three.output_text, 'Three.');
    assert.deepEqual(roles(fake.last), ['system: Be kind.', 'user: Hi', 'assistant: Hello.', 'user: Again', 'assistant: Two times.', 'user: Once more']);

    fake.next(play.ok({ text: 'Another way.' }));
    await sdk().responses.create({ model: 'm1', input: 'Back', previous_response_id: one.id });
    assert.deepEqual(roles(fake.last), ['user: Hi', 'assistant: Hello.', 'user: Back'], 'a conversation may fork');
    assert.equal(fake.last.json.previous_response_id, undefined);
});

scenario('a conversation stays with its account, which is chosen among several', async (t) => {
    const { fake, sdk } = await start(t, { provider: { credentials: ['sk-up-1', 'sk-up-2'] } });
    const keys = [];
    let previous;
    for (let i = 0; i < 4; i++) {
        const r = await sdk().responses.create({ model: 'm1', input: `turn ${i}`, instructions: `mood ${i}`, ...(previous && { previous_response_id: previous }) });
        previous = r.id;
        keys.push(fake.last.key);
        for (let k = 0; k <= i; k++) await sdk().chat.completions.create({ model: 'm1', messages: [{ role: 'user', content: `something else ${i} ${k}` }] });
    }
    assert.equal(new Set(keys).size, 1, keys.join(' '));
});

scenario('calls and their outputs over turns', async (t) => {
    const { fake, sdk } = await start(t);
    const tool = { type: 'function', name: 'look', parameters: { type: 'object', properties: {} }, strict: false };
    fake.next((rec) => {
        const call = (id) => ({ id, type: 'function', function: { name: 'look', arguments: '{}' } });
        rec.res.writeHead(200, { 'content-type': 'application/json' });
        rec.res.end(JSON.stringify({ id: 'x', object: 'chat.completion', created: 1, model: 'm1', choices: [{ index: 0, message: { role: 'assistant', content: null, tool_calls: [call('call_a'), call('call_b')] }, finish_reason: 'tool_calls' }], usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 } }));
    });
    const one = await sdk().responses.create({ model: 'm1', input: 'Look', tools: [tool] });
    assert.deepEqual(one.output.map((x) => x.call_id), ['call_a', 'call_b']);
    const output = (call_id) => ({ type: 'function_call_output', call_id, output: `of ${call_id}` });
    await assert.rejects(sdk().responses.create({ model: 'm1', input: [output('call_a')], tools: [tool], previous_response_id: one.id }), /No tool output found for function call call_b/);
    fake.next(play.ok({ text: 'Seen.' }));
    const two = await sdk().responses.create({ model: 'm1', input: ['call_b', 'call_a'].map(output), tools: [tool], previous_response_id: one.id });
    assert.equal(two.output_text, 'Seen.');
    assert.deepEqual(roles(fake.last), ['user: Look', 'assistant: call_a,call_b', 'tool: of call_a', 'tool: of call_b']);
});

scenario('one response: retrieve, its input, delete, cancel; and another key sees none of it', async (t) => {
    const { fake, gw, sdk } = await start(t);
    fake.always(play.ok({ text: 'Hello.' }));
    const input = [{ role: 'user', content: 'a' }, { role: 'assistant', content: 'b' }, { type: 'message', id: 'msg_mine', role: 'user', content: [{ type: 'input_text', text: 'c' }] }];
    const r = await sdk().responses.create({ model: 'm1', input, metadata: { a: 'b' } });
    const got = await sdk().responses.retrieve(r.id, { include: ['reasoning.encrypted_content'] });
    assert.deepEqual(got, r);

    const items = [];
    for await (const item of sdk().responses.inputItems.list(r.id, { order: 'asc', limit: 2 })) items.push(item);
    assert.deepEqual(items.map((x) => x.content[0]), [{ type: 'input_text', text: 'a' }, { type: 'output_text', annotations: [], logprobs: [], text: 'b' }, { type: 'input_text', text: 'c' }]);
    assert.equal(items[2].id, 'msg_mine');
    const page = await request(gw, { path: `/v1/responses/${r.id}/input_items?limit=2` });
    assert.deepEqual([page.json.object, page.json.data.map((x) => x.id), page.json.first_id, page.json.last_id, page.json.has_more], ['list', [items[2].id, items[1].id], items[2].id, items[1].id, true]);
    const rest = await request(gw, { path: `/v1/responses/${r.id}/input_items?limit=2&after=${items[1].id}` });
    assert.deepEqual([rest.json.data.map((x) => x.id), rest.json.has_more], [[items[0].id], false]);
    const text = await sdk().responses.create({ model: 'm1', input: 'just a text' });
    const [only] = (await sdk().responses.inputItems.list(text.id)).data;
    assert.deepEqual({ ...only, id: undefined }, { id: undefined, ...asked('just a text') });
    for (const [query, param] of [['limit=0', 'limit'], ['limit=101', 'limit'], ['order=up', 'order'], ['after=nobody', 'after']]) {
        const wrong = await request(gw, { path: `/v1/responses/${r.id}/input_items?${query}` });
        assert.deepEqual([wrong.status, wrong.error.param], [400, param]);
    }

    await assert.rejects(sdk().responses.cancel(r.id), (e) => e.status === 400 && /synchronous/.test(e.message));
    const bob = sdk(OTHER_KEY).responses;
    for (const foreign of ['retrieve', 'delete', 'cancel'].map((name) => () => bob[name](r.id)).concat(() => bob.inputItems.list(r.id))) await assert.rejects(foreign, (e) => e.status === 404 && /not found/.test(e.message));
    await assert.rejects(bob.create({ model: 'm1', input: 'x', previous_response_id: r.id }), (e) => e.status === 400 && e.code === 'previous_response_not_found' && e.param === 'previous_response_id');
    const before = fake.requests.length;
    assert.equal((await sdk().responses.retrieve(r.id)).id, r.id, 'it is still there');

    await sdk().responses.delete(r.id);
    await assert.rejects(sdk().responses.retrieve(r.id), (e) => e.status === 404);
    await assert.rejects(sdk().responses.delete(r.id), (e) => e.status === 404);
    await assert.rejects(sdk().responses.create({ model: 'm1', input: 'x', previous_response_id: r.id }), (e) => e.code === 'previous_response_not_found');
    for (const [method, path] of [['PUT', `/v1/responses/${r.id}`], ['GET', `/v1/responses/${r.id}/nothing`], ['POST', `/v1/responses/${r.id}`]]) assert.ok([404, 405].includes((await request(gw, { method, path })).status));
    assert.equal((await request(gw, { path: `/v1/responses/${r.id}`, key: null })).status, 401);
    assert.equal(fake.requests.length, before, 'none of it is the platform’s business');
});

scenario('tokens are counted, with the turns before', async (t) => {
    const { sdk } = await start(t);
    const r = await sdk().responses.create({ model: 'm1', input: 'word '.repeat(200) });
    const count = async (more) => (await sdk().responses.inputTokens.count({ model: 'm1', input: 'Hi', ...more })).input_tokens;
    const alone = await count({});
    assert.ok(alone > 0 && alone < 50);
    assert.ok((await count({ previous_response_id: r.id })) > alone + 150);
});

scenario('store: false keeps nothing; what is kept is sealed, bounded, and can be switched off', async (t) => {
    const { gw, sdk } = await start(t, { store: { responses_max: 2 } });
    const file = join(gw.dir, 'state', 'responses.db');
    const r = await sdk().responses.create({ model: 'm1', input: 'x', store: false });
    assert.equal(r.store, false);
    await assert.rejects(sdk().responses.retrieve(r.id), (e) => e.status === 404);
    const ids = [];
    for (let i = 0; i < 3; i++) ids.push((await sdk().responses.create({ model: 'm1', input: `the secret question of ${i}` })).id);
    await assert.rejects(sdk().responses.retrieve(ids[0]), (e) => e.status === 404);
    await sdk().responses.retrieve(ids[2]);
    await gw.stop();
    assert.ok(existsSync(file));
    assert.ok(!readFileSync(file).includes('secret question'));

    const off = await start(t, { store: { responses_ttl: 0 } });
    const unkept = await off.sdk().responses.create({ model: 'm1', input: 'x' });
    assert.equal(unkept.store, false);
    await assert.rejects(off.sdk().responses.create({ model: 'm1', input: 'x', previous_response_id: unkept.id }), /not kept here/);
    assert.ok(!existsSync(join(off.gw.dir, 'state', 'responses.db')));
});

scenario('a client that leaves while its conversation is read', async (t) => {
    const { gw, sdk } = await start(t, { fakeOptions: { strict: false } });
    let id = (await sdk().responses.create({ model: 'm1', input: 'x'.repeat(200_000) })).id;
    for (let i = 0; i < 3; i++) id = (await sdk().responses.create({ model: 'm1', input: 'y'.repeat(100_000), previous_response_id: id })).id;
    for (let i = 0; i < 20; i++) {
        const leaving = new AbortController();
        const asking = sdk().responses.create({ model: 'm1', input: 'x', previous_response_id: id }, { signal: leaving.signal }).catch(() => 0);
        setTimeout(() => leaving.abort(), i);
        await asking;
    }
    assert.equal((await request(gw, { path: '/readyz' })).status, 200);
    assert.equal((await sdk().responses.create({ model: 'm1', input: 'x', previous_response_id: id })).status, 'completed');
});
