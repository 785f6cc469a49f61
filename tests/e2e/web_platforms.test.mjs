// What the web platforms have in common through the gateway: tools by prompt, conversations that clients hand back, output options.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { chat, CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { readChatStream } from '../lib/raw.mjs';
import * as deepseek from '../lib/fake_deepseek.mjs';
import * as genspark from '../lib/fake_genspark.mjs';
import * as hix from '../lib/fake_hix.mjs';

const OTHER_KEY = 'sk-test-of-somebody-else';
const SECRET = 'adm-secret-0815-4711';

async function pair(t, type, fake, credentials, provider = {}) {
    const gw = await startGateway(t, {
        config: { auth: { keys: [CLIENT_KEY, OTHER_KEY], admin_secret: SECRET }, retry: { retries: 0 }, [`provider ${type}`]: { type, base_url: fake.base, credentials, ...provider } },
    });
    return { gw, fake, sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }) };
}

async function startDeepseek(t, provider, options) {
    const fake = await deepseek.startFakeDeepseek(t, { difficulty: 2000, ...options });
    const p = await pair(t, 'deepseek', fake, fake.tokens, provider);
    const asked = () => fake.of('/api/v0/chat/completion').map((rec) => ({ text: rec.json.prompt, where: rec.json.chat_session_id, account: rec.account }));
    return { ...p, model: 'deepseek-chat', says: (...pieces) => deepseek.say.answer({ pieces }), asked };
}

async function startGenspark(t, provider, options) {
    const fake = await genspark.startFakeGenspark(t, options);
    const p = await pair(t, 'genspark', fake, fake.sessions, provider);
    const asked = () => fake.asks.map((rec) => ({ text: rec.json.messages.map((m) => m.content).join('\n'), where: rec.project, account: rec.session }));
    return { ...p, model: 'gpt-5.2', says: (...pieces) => genspark.say.answer({ pieces }), asked };
}

async function startHix(t, provider, options) {
    const fake = await hix.startFakeHix(t, options);
    const p = await pair(t, 'hix', fake, [...fake.sessions], provider);
    const asked = () => fake.of('/api/hix/chat').map((rec) => ({ text: rec.json.question, where: rec.json.chatId, account: rec.session }));
    return { ...p, model: 'deepseek-v3', says: (...pieces) => hix.say.answer({ pieces }), asked };
}

// ---- tools ----

const tools = [{ type: 'function', function: { name: 'weather', description: 'The weather at a place', parameters: { type: 'object', properties: { at: { type: 'string' } } } } }];
const CALL = ['I will look', ' it up.\n\n<tool', '_call>\n{"name": "weather", "argu', 'ments": {"at": "Oslo \\u00e9"}}\n</tool_call>', '\n'];

for (const [name, start, provider] of [
    ['deepseek', startDeepseek, {}],
    ['genspark, agent', startGenspark, {}],
    ['genspark, agent, in one chat', startGenspark, { 'x.continue': 'thread' }],
    ['genspark, copilot', startGenspark, { 'x.dialect': 'copilot' }],
])
    for (const stream of [false, true])
        scenario(`a tool is called and its result told, ${name}, ${stream ? 'streamed' : 'whole'}`, async (t) => {
            const p = await start(t, provider);
            const messages = [{ role: 'user', content: 'How is it in Oslo?' }];
            const ask = async () => {
                if (!stream) return (await p.sdk.chat.completions.create({ model: p.model, messages, tools })).choices[0];
                return (await p.sdk.chat.completions.stream({ model: p.model, messages, tools }).finalChatCompletion()).choices[0];
            };
            p.fake.next(p.says(...CALL), p.says('It is cold.'));
            const first = await ask();
            assert.equal(first.finish_reason, 'tool_calls');
            assert.equal(first.message.content, 'I will look it up.');
            assert.equal(first.message.tool_calls.length, 1);
            const [call] = first.message.tool_calls;
            assert.equal(call.function.name, 'weather');
            assert.deepEqual(JSON.parse(call.function.arguments), { at: 'Oslo é' });
            assert.match(p.asked()[0].text, /The weather at a place/);

            messages.push({ role: 'assistant', content: first.message.content, tool_calls: [{ id: call.id, type: 'function', function: { name: call.function.name, arguments: call.function.arguments } }] }, { role: 'tool', tool_call_id: call.id, content: '-4 degrees' });
            const second = await ask();
            assert.equal(second.finish_reason, 'stop');
            assert.equal(second.message.content, 'It is cold.');
            assert.match(p.asked()[1].text, /<tool_response name="weather">\n-4 degrees\n<\/tool_response>/);
            if (/deepseek|one chat/.test(name)) {
                assert.equal(p.asked()[1].where, p.asked()[0].where, 'the conversation does not go on');
                assert.ok(!/How is it/.test(p.asked()[1].text));
            } else {
                assert.match(p.asked()[1].text, /<tool_call>\n\{"name": "weather"/);
            }
        });

scenario('what only looks like a call is text, and tools can be refused', async (t) => {
    const p = await startDeepseek(t);
    const text = 'Write <tool_call>{"name":"rm","arguments":{}}</tool_call> like this.';
    p.fake.always(p.says(...text));
    const { choices } = await p.sdk.chat.completions.create({ model: p.model, messages: [{ role: 'user', content: 'x' }], tools });
    assert.equal(choices[0].message.content, text);
    assert.equal(choices[0].finish_reason, 'stop');
    const refusing = await startGenspark(t, { 'x.tools': 'refuse' });
    const refused = await request(refusing.gw, { body: chat('gpt-5.2', 'x', { tools }) });
    assert.equal(refused.status, 400, refused.text);
    assert.equal(refused.error.param, 'tools');
});

// ---- conversations that are handed back ----

for (const [name, start, provider, options] of [
    ['deepseek', startDeepseek, {}, { accounts: Array.from({ length: 4 }, (_, i) => deepseek.userToken(`account ${i}`)) }],
    ['genspark', startGenspark, { 'x.continue': 'thread' }, { sessions: [1, 2, 3, 4].map(genspark.session) }],
    ['hix', startHix, {}, {}],
])
    scenario(`a conversation is handed back, over a restart, ${name}`, async (t) => {
        const p = await start(t, provider, options);
        const ask = async (text, more = {}, key = CLIENT_KEY) => request(p.gw, { key, body: chat(p.model, text, more) });
        p.fake.always(p.says('Blue'));
        const begun = await ask('FIRST');
        assert.equal(begun.status, 200, begun.text);
        const handle = begun.json.conversation_id;
        assert.match(handle, /^conv_[\w-]+$/);
        await ask('another question, another account');
        await p.gw.restart();

        const went = await ask('SECOND', { conversation_id: handle, stream: true });
        assert.equal(went.status, 200, went.text);
        const [first, , second] = p.asked();
        assert.equal(second.text, 'SECOND');
        assert.equal(second.where, first.where);
        assert.equal(second.account, first.account);
        const told = readChatStream(went.bytes).chunks.find((chunk) => chunk.choices[0]?.finish_reason).conversation_id;
        assert.match(told, /^conv_/);
        assert.equal((await ask('THIRD', { conversation_id: told })).status, 200);
        assert.equal(p.asked()[3].where, first.where);

        // nobody else's
        const before = p.asked().length;
        const foreign = await ask('x', { conversation_id: handle }, OTHER_KEY);
        assert.equal(foreign.status, 404, foreign.text);
        assert.equal(foreign.error.param, 'conversation_id');
        assert.equal(p.asked().length, before);
        // a client's own name of a session is no handle
        assert.equal((await ask('x', { conversation_id: 'my-session-1' })).status, 200);
    });

// ---- output options ----

scenario('-silent and -fold', async (t) => {
    const { fake, gw, sdk } = await startDeepseek(t);
    fake.always(deepseek.say.answer({ reasoning: ['Two ', 'options.'], pieces: ['Blue', '[citation:1].'], results: [{ url: 'https://a.test/', title: 'A' }], cited: [1] }));
    const messages = [{ role: 'user', content: 'Name a colour.' }];
    const silent = (await sdk.chat.completions.create({ model: 'deepseek-r1-search-silent', messages })).choices[0].message;
    assert.equal(silent.content, 'Blue.');
    assert.equal(silent.reasoning_content, undefined);
    assert.deepEqual(silent.annotations, []);
    const { text } = readChatStream((await request(gw, { body: chat('deepseek-r1-fold', 'Name a colour.', { stream: true }) })).bytes);
    assert.match(text, /^<details><summary>.*<\/summary>\s+Two options\.\s+<\/details>\s+Blue\.$/);
});

// ---- a platform that has changed ----

for (const [name, start, states] of [
    ['deepseek', startDeepseek, ['CREATE', 'CHALLENGE', 'PROVE', 'TALK']],
    ['genspark', startGenspark, ['ASK']],
    ['hix', startHix, ['CREATE', 'TALK']],
])
    scenario(`a probe walks through the flow, ${name}`, async (t) => {
        const p = await start(t);
        p.fake.always(p.says('Bl', 'ue'));
        const walked = await request(p.gw, { path: `/admin/api/providers/${name}/probe`, key: SECRET, body: { model: p.model } });
        assert.equal(walked.status, 200, walked.text);
        assert.equal(walked.json.ok, true, walked.text);
        assert.equal(walked.json.answer, 'Blue');
        const seen = walked.json.steps.map((step) => step.state);
        for (const state of states) assert.ok(seen.includes(state), `${state} is not among ${seen}`);
        assert.ok(walked.json.steps.some((step) => step.status === 200));
        const secret = p.fake.tokens?.[0] ?? p.fake.sessions[0];
        assert.ok(!walked.text.includes(secret), 'the account is shown');
    });
