// What is set aside for a key, and what it is charged: budgets hold under parallel requests, whatever name the price stands at.
import assert from 'node:assert/strict';
import { play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';
import { chat, CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';

const SECRET = 'adm-secret-0815-4711';
const AUTH = { auth: { keys: [CLIENT_KEY], admin_secret: SECRET } };

async function admin(gw, path, body) {
    const answer = await request(gw, { path: `/admin/api${path}`, key: SECRET, body });
    assert.ok(answer.status === 200 || answer.status === 201, answer.text);
    return answer.json;
}
const keyWith = (gw, limits) => admin(gw, '/keys', { name: `k${Math.random()}`, ...limits });
const settled = (gw, id) => until(async () => ((k) => k.inflight === 0 && k)(await admin(gw, `/keys/${id}`)), 'the key to be settled');

/** Five requests at once, each of which may cost 0.15 and does. */
async function fiveAtOnce(gw, fake, key, model) {
    for (let i = 0; i < 5; i++) fake.next(play.after(300, play.ok({ usage: { prompt_tokens: 0, completion_tokens: 150, total_tokens: 150 } })));
    const answers = await Promise.all(Array.from({ length: 5 }, () => request(gw, { key, body: chat(model, 'hi', { max_tokens: 150 }) })));
    return answers.sort((a, b) => a.status - b.status);
}

for (const [where, name] of [['the name of the route', 'best'], ["the target's model", 'm1']]) {
    scenario(`a budget holds against parallel requests: the price stands at ${where}`, async (t) => {
        const fake = await startFakeOpenai(t);
        const gw = await startGateway(t, { config: { ...AUTH, 'provider up': providerFor(fake, { models: ['m1'] }), 'model best': { targets: ['up/m1'] }, [`price ${name}`]: { output: 1000 } } });
        const { id, key } = await keyWith(gw, { budget_usd: 0.2 });
        const answers = await fiveAtOnce(gw, fake, key, 'best');
        assert.deepEqual(answers.map((a) => a.status), [200, 429, 429, 429, 429]);
        for (const refused of answers.slice(1)) assert.match(refused.error.message, /may spend \$0\.20 in total, .*\$0\.15 are reserved by open requests/);
        const state = await settled(gw, id);
        assert.deepEqual([state.spent_usd, state.reserved_usd], [0.15, 0]);
    });
}

scenario('without max_tokens as many are set aside as the model can answer with', async (t) => {
    const fake = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { ...AUTH, 'provider up': providerFor(fake, { models: ['gpt-4o', 'gpt-4.1-mini-2025-04-14', 'mine'] }) } });
    const { key } = await keyWith(gw, { tpm: 1000 });
    const needed = async (model, more) => {
        const { status, error } = await request(gw, { key, body: chat(model, 'hi', more) });
        assert.equal(status, 429);
        return Number(/this request may need (\d+) tokens/.exec(error.message)[1]);
    };
    const asked = (await needed('gpt-4o', { max_tokens: 2000 })) - 2000;
    assert.ok(asked > 0 && asked < 50, `${asked}`);
    for (const [model, tokens] of [['gpt-4o', 16384], ['gpt-4.1-mini-2025-04-14', 32768], ['mine', 4096]]) assert.equal(await needed(model), tokens + asked);
    assert.equal(await needed('gpt-4o', { n: 2 }), 2 * 16384 + asked);
});
