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

/* [path, body, what is told, in the order of the model] */
const SPELLED = [
    ['/v1/responses', { input: 'Hi', store: false, max_output_tokens: 9, top_logprobs: 1, reasoning: { effort: 'low' }, text: { format: { type: 'json_object' }, verbosity: 'low' } },
        'max_output_tokens, top_logprobs, reasoning.effort, text.verbosity, text.format'],
    ['/v1/messages', {
        messages: ASKED.messages, max_tokens: 9, stop_sequences: ['a'], metadata: { user_id: 'u' }, thinking: { type: 'enabled', budget_tokens: 1024 },
        tools: [{ name: 'f', input_schema: { type: 'object' } }], tool_choice: { type: 'auto', disable_parallel_tool_use: true },
    }, 'stop_sequences, thinking, tool_choice.disable_parallel_tool_use, metadata.user_id'],
    ['/v1beta/models/demo:generateContent', {
        contents: [{ parts: [{ text: 'Hi' }] }], generationConfig: { temperature: 1, topK: 3, presencePenalty: 1, maxOutputTokens: 9, stopSequences: ['a'], responseMimeType: 'application/json' },
    }, 'generationConfig.temperature, generationConfig.topK, generationConfig.presencePenalty, generationConfig.maxOutputTokens, generationConfig.stopSequences, generationConfig.responseMimeType'],
];
for (const [path, body, told] of SPELLED)
    scenario(`what is dropped or refused is named as the client wrote it: ${path}`, async (t) => {
        const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo' }, 'provider strict': { type: 'demo', strict: 'yes', models: 'strict=demo' } } });
        const answer = await request(gw, { path, body: { ...(!path.includes('v1beta') && { model: 'demo' }), ...body } });
        assert.equal(answer.status, 200, answer.text);
        assert.equal(answer.headers['x-chatmux-dropped'], told);
        const refused = await request(gw, { path: path.replace('demo', 'strict'), body: { ...(!path.includes('v1beta') && { model: 'strict' }), ...body } });
        assert.equal(refused.status, 400, refused.text);
        const [first] = told.split(', ');
        assert.ok(refused.json.error.message.includes(`"${first}" has no effect`), refused.text);
        if (path === '/v1/responses') assert.equal(refused.json.error.param, first);
        if (path.includes('v1beta')) assert.equal(refused.json.error.details[0].fieldViolations[0].field, first);
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

const TOOL = { type: 'object', properties: {} };
/* [path, body, what is told]: one unknown member in each kind of object */
const NESTED = [
    ['/v1/chat/completions', {
        model: 'demo',
        messages: [
            { role: 'system', content: 'Short.', weight: 1 },
            { role: 'user', content: [{ type: 'text', text: 'Hi', priority: 1, cache_control: { type: 'ephemeral', scope: 'all' } },
                { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=', detail: 'low', format: 'png' } }] },
            { role: 'assistant', content: null, refusal: null, annotations: [], tool_calls: [{ id: 'c1', type: 'function', index: 0, function: { name: 'f', arguments: '{}', extra: 1 } }] },
            { role: 'tool', tool_call_id: 'c1', content: 'ok', is_error: false },
        ],
        tools: [{ type: 'function', defer_loading: true, function: { name: 'f', parameters: TOOL, returns: {} } }],
        tool_choice: { type: 'function', function: { name: 'f', force: true } },
        response_format: { type: 'json_object', indent: 2 },
        stream: true, stream_options: { include_usage: true, include_obfuscation: false, batch: 1 },
    }, ['messages[0].weight', 'messages[1].content[0].priority', 'messages[1].content[0].cache_control.scope', 'messages[1].content[1].image_url.format',
        'messages[2].tool_calls[0].function.extra', 'messages[3].is_error', 'tools[0].defer_loading', 'tools[0].function.returns', 'tool_choice.function.force',
        'response_format.indent', 'stream_options.batch']],
    ['/v1/completions', { model: 'demo', prompt: 'Hi', stream: true, stream_options: { include_usage: true, batch: 1 } }, ['stream_options.batch']],
    ['/v1/messages', {
        model: 'demo', max_tokens: 9,
        system: [{ type: 'text', text: 'Short.', weight: 1 }],
        messages: [
            { role: 'user', content: [{ type: 'document', title: 'A', citations: { enabled: false, style: 'x' }, source: { type: 'text', media_type: 'text/plain', data: 'a', encoding: 'b' } }], name: 'Jo' },
            { role: 'assistant', content: [{ type: 'text', text: 'x', citations: null }, { type: 'tool_use', id: 't1', name: 'f', input: { any: 1 }, caller: { type: 'direct' }, extra: 1 }] },
            { role: 'user', content: [{ type: 'tool_result', tool_use_id: 't1', content: [{ type: 'text', text: 'ok', deep: 1 }] }] },
        ],
        tools: [{ name: 'f', input_schema: TOOL, eager_input_streaming: true, input_examples: [], cache_control: { type: 'ephemeral' } }, { name: 'g', input_schema: TOOL, eager_input_streaming: true, defer_loading: false }],
        tool_choice: { type: 'auto', force: 1 }, thinking: { type: 'enabled', budget_tokens: 1024, pace: 'slow' }, metadata: { user_id: 'u', team: 't' },
        output_config: { effort: 'low', task_budget: {} },
    }, ['system[0].weight', 'messages[0].name', 'messages[0].content[0].citations.style', 'messages[0].content[0].source.encoding', 'messages[1].content[1].extra',
        'messages[2].content[0].content[0].deep', 'tools[0].input_examples', 'tools[1].defer_loading', 'tool_choice.force', 'thinking.pace', 'metadata.team', 'output_config.task_budget']],
    ['/v1beta/models/demo:generateContent', {
        system_instruction: { parts: [{ text: 'Short.', inlineData: { mimeType: 'image/png', data: 'AA==' } }] },
        contents: [{ role: 'user', parts: [{ text: 'Hi', videoMetadata: { fps: 1 } }, { inline_data: { mime_type: 'image/png', data: 'iVBORw0KGgo=', scale: 2 } }], weight: 1 }],
        tools: [{ function_declarations: [{ name: 'f', parameters_json_schema: TOOL, behavior: 'BLOCKING' }] }],
        toolConfig: { functionCallingConfig: { mode: 'AUTO', streamFunctionCallArguments: true }, retrievalConfig: {} },
        generationConfig: { maxOutputTokens: 9, top_k: 3, imageConfig: {}, thinkingConfig: { includeThoughts: true, pace: 1 } },
    }, ['system_instruction.parts[0].inlineData', 'contents[0].parts[0].videoMetadata', 'contents[0].parts[1].inline_data.scale', 'contents[0].weight',
        'tools[0].function_declarations[0].behavior', 'toolConfig.functionCallingConfig.streamFunctionCallArguments', 'toolConfig.retrievalConfig',
        'generationConfig.imageConfig', 'generationConfig.thinkingConfig.pace']],
    ['/v1/responses', {
        model: 'demo', store: false,
        input: [
            { role: 'user', content: [{ type: 'input_text', text: 'Hi', priority: 1 }], weight: 1 },
            { type: 'message', role: 'assistant', id: 'msg_1', status: 'completed', content: [{ type: 'output_text', text: 'x', annotations: [], logprobs: [], tone: 'dry' }] },
            { type: 'function_call', id: 'fc_1', call_id: 'c1', name: 'f', arguments: '{}', status: 'completed', extra: 1 },
            { type: 'function_call_output', call_id: 'c1', output: 'ok', is_error: false },
            { role: 'user', content: 'Go on' },
        ],
        tools: [{ type: 'function', name: 'f', parameters: TOOL, strict: false, defer_loading: true }],
        text: { format: { type: 'text', indent: 2 }, verbosity: 'low' }, reasoning: { effort: 'low', generate_summary: 'auto' }, stream_options: { batch: 1 },
    }, ['input[0].content[0].priority', 'input[0].weight', 'input[1].content[0].tone', 'input[2].extra', 'input[3].is_error', 'tools[0].defer_loading', 'text.format.indent',
        'reasoning.generate_summary', 'stream_options.batch']],
];
const LACKED = ['metadata.user_id', 'output_config.effort', 'generationConfig.maxOutputTokens', 'generationConfig.topK', 'generationConfig.thinkingConfig', 'reasoning.effort', 'text.verbosity'];
for (const [path, body, expected] of NESTED)
    scenario(`members inside of others that nobody here knows are told with their place: ${path}`, async (t) => {
        const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo' }, 'provider strict': { type: 'demo', strict: 'yes', models: 'strict=demo' } } });
        const answer = await request(gw, { path, body });
        assert.equal(answer.status, 200, answer.text);
        /* those that only this platform lacks are not meant */
        const told = answer.headers['x-chatmux-dropped'].split(', ').filter((name) => /[.[]/.test(name) && !LACKED.includes(name));
        assert.deepEqual(told.sort(), [...expected].sort());
        const strict = await request(gw, { path: path.replace('demo', 'strict'), body: { ...body, ...(body.model && { model: 'strict' }) } });
        assert.equal(strict.status, 400, strict.text);
        assert.ok(expected.some((name) => strict.text.includes(name)), strict.text);
    });

scenario('what only some platforms have a place for inside of messages and tools is told, too', async (t) => {
    const up = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo' }, 'provider up': providerFor(up) } });
    const ask = (model) => ({
        model, max_tokens: 9,
        messages: [{ role: 'user', content: [{ type: 'document', title: 'A', context: 'old', source: { type: 'base64', media_type: 'application/pdf', data: 'JVBERi0xLjQ=' } }] }],
        tools: [{ name: 'f', input_schema: TOOL, strict: true }, { name: 'g', input_schema: TOOL, strict: true }],
    });
    const chat = [{ role: 'user', name: 'Jo', content: [{ type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=', detail: 'low' } }] }];
    const demo = await request(gw, { body: { model: 'demo', messages: chat, tools: [{ type: 'function', function: { name: 'f', parameters: TOOL, strict: true } }] } });
    assert.equal(demo.headers['x-chatmux-dropped'], 'messages.name, detail, strict');
    const named = await request(gw, { path: '/v1/messages', body: ask('demo') });
    assert.equal(named.headers['x-chatmux-dropped'], 'context, title, strict');
    const openai = await request(gw, { path: '/v1/messages', body: ask('m1') });
    assert.equal(openai.status, 200, openai.text);
    assert.equal(openai.headers['x-chatmux-dropped'], 'context, strict', 'of two tools told once: their schemas are not closed');
});

scenario('what is inside of a relayed body is told by nobody', async (t) => {
    const fake = await startFakeOpenai(t, { allow: ['messages'] });
    const gw = await startGateway(t, { config: { 'provider up': providerFor(fake, { strict: 'yes' }) } });
    const messages = [{ role: 'user', content: 'Hi', weight: 1 }];
    const answer = await request(gw, { body: { model: 'm1', messages } });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.headers['x-chatmux-dropped'], undefined);
    assert.deepEqual(fake.last.json.messages, messages);
});

scenario('a body full of unknown members is answered with a head that is not', async (t) => {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo' } } });
    const one = (i) => Object.fromEntries(Array.from({ length: 10 }, (_, k) => [`x${i}_${k}`, 1]));
    const messages = Array.from({ length: 2000 }, (_, i) => ({ role: 'user', content: 'Hi', same: 1, ...one(i) }));
    messages[0][`long_${'x'.repeat(100)}`] = messages[0]['odd, name'] = 1;
    const answer = await request(gw, { body: { model: 'demo', messages } });
    assert.equal(answer.status, 200, answer.text);
    const told = answer.headers['x-chatmux-dropped'].split(', ');
    assert.equal(told.length, 32);
    assert.equal(told.filter((name) => name.endsWith('.same')).length, 1, 'once, wherever it stands');
    assert.ok(told.includes('messages[0].unknown') && told.every((name) => name.length < 64), told.join());
});
