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
