// Members of a request that have no effect: named in a header, or refused.
import assert from 'node:assert/strict';
import { request, scenario, startGateway } from '../lib/gateway.mjs';
import { providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const ASKED = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }], seed: 7, temperature: 0.5, store: true };

scenario('what a translated provider drops is told, streamed and not', async (t) => {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo' } } });
    for (const stream of [false, true]) {
        const answer = await request(gw, { body: { ...ASKED, stream } });
        assert.equal(answer.status, 200, answer.text);
        assert.equal(answer.headers['x-chatmux-dropped'], 'store, temperature, seed');
    }
    const plain = await request(gw, { body: { model: 'demo', messages: ASKED.messages } });
    assert.equal(plain.headers['x-chatmux-dropped'], undefined);
});

scenario('strict refuses it and names the member', async (t) => {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo', strict: 'yes' } } });
    const refused = await request(gw, { body: { ...ASKED, store: undefined } });
    assert.equal(refused.status, 400);
    assert.equal(refused.json.error.param, 'temperature');
    assert.equal(refused.json.error.code, 'unsupported_parameter');
    assert.equal((await request(gw, { body: { model: 'demo', messages: ASKED.messages } })).status, 200);
});

scenario('strict leaves what is relayed alone', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake, { strict: 'yes' }) } });
    const answer = await request(gw, { body: { ...ASKED, model: 'm1' } });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.headers['x-chatmux-dropped'], undefined);
    assert.equal(fake.last.json.seed, 7);
});

const UNKNOWN = { repetition_penalty: 1.1, chat_template_kwargs: {}, nothing: null, 'odd\r\nx-evil: 1': 1 };
for (const [path, body] of [
    ['/v1/chat/completions', { model: 'demo', messages: ASKED.messages }],
    ['/v1/messages', { model: 'demo', max_tokens: 9, messages: ASKED.messages }],
    ['/v1beta/models/demo:generateContent', { contents: [{ parts: [{ text: 'Hi' }] }] }],
])
    scenario(`members that nobody here knows are told, too: ${path}`, async (t) => {
        const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo' }, 'provider strict': { type: 'demo', strict: 'yes', models: 'strict=demo' } } });
        const answer = await request(gw, { path, body: { ...body, ...UNKNOWN } });
        assert.equal(answer.status, 200, answer.text);
        const dropped = answer.headers['x-chatmux-dropped'].split(', ');
        for (const name of ['repetition_penalty', 'chat_template_kwargs', 'unknown']) assert.ok(dropped.includes(name), dropped.join());
        assert.ok(!dropped.includes('nothing'), 'null is as good as absent');
        assert.equal(answer.headers['x-evil'], undefined);
        const strict = await request(gw, { path: path.replace('demo', 'strict'), body: { ...body, ...(body.model && { model: 'strict' }), repetition_penalty: 1 } });
        assert.equal(strict.status, 400, strict.text);
        assert.match(strict.text, /repetition_penalty/);
    });

scenario('members that nobody here knows are relayed without a word', async (t) => {
    const fake = await startFakeOpenai(t, { allow: ['repetition_penalty'] });
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake, { strict: 'yes' }) } });
    const answer = await request(gw, { body: { model: 'm1', messages: ASKED.messages, repetition_penalty: 1.1 } });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.headers['x-chatmux-dropped'], undefined);
    assert.equal(fake.last.json.repetition_penalty, 1.1);
});
