// The adapter `anthropic` against a strict Messages API: bytes for Claude's own SDK, translation for OpenAI's.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { play, providerFor, startFakeAnthropic, USAGE } from '../lib/fake_anthropic.mjs';
import { providerFor as openaiFor, startFakeOpenai } from '../lib/fake_openai.mjs';

const SONNET = 'claude-sonnet-4-5'; // thinks with a budget, takes temperature or top_p
const OPUS = 'claude-opus-4-8'; // thinks adaptively, takes no sampling

async function pair(t, { fake: options, provider, config } = {}) {
    const fake = await startFakeAnthropic(t, options);
    const gw = await startGateway(t, { config: { 'provider claude': providerFor(fake, provider), retry: { retries: 0, max_wait: 0 }, ...config } });
    return { fake, gw };
}
const openai = (gw) => new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 });
const claude = (gw, options) => new Anthropic({ baseURL: gw.url, apiKey: CLIENT_KEY, maxRetries: 0, ...options });
const user = (content) => ({ role: 'user', content });
const text = (t) => ({ type: 'text', text: t });
const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mPQz78HAAJNAX0mh+/CAAAAAElFTkSuQmCC';
const WEATHER = { type: 'function', function: { name: 'weather', description: 'of a place', parameters: { type: 'object', properties: { at: { type: 'string' } }, required: ['at'] } } };

/** A chat stream of OpenAI's put together; the SDK's own chunks. */
async function collect(stream) {
    const seen = { content: '', reasoning: '', calls: [], chunks: [], finish: null, usage: null };
    for await (const chunk of stream) {
        seen.chunks.push(chunk);
        seen.usage = chunk.usage ?? seen.usage;
        const [choice] = chunk.choices;
        seen.content += choice?.delta.content ?? '';
        seen.reasoning += choice?.delta.reasoning_content ?? '';
        for (const { index, id, type, function: f } of choice?.delta.tool_calls ?? []) {
            if (id) {
                assert.equal(index, seen.calls.length, 'calls are numbered without gaps');
                assert.equal(type, 'function');
                seen.calls.push({ id, type, function: { name: f.name, arguments: '' } });
            } else {
                assert.deepEqual([type, f.name], [undefined, undefined], 'id, type and name come once');
                assert.notEqual(f.arguments, '', 'no empty pieces');
            }
            seen.calls[index].function.arguments += f.arguments;
        }
        seen.finish = choice?.finish_reason ?? seen.finish;
    }
    return seen;
}

// ---- OpenAI's SDK ------------------------------------------------------------------------------------------------------

scenario('rate limits of the upstream are told in OpenAI’s headers', async (t) => {
    const { fake, gw } = await pair(t);
    const told = (headers) => Object.fromEntries(Object.entries(headers).filter(([name]) => /ratelimit/.test(name)));
    const limit = (name, most, left, ms) => ({ [`anthropic-ratelimit-${name}-limit`]: most, [`anthropic-ratelimit-${name}-remaining`]: left, [`anthropic-ratelimit-${name}-reset`]: new Date(Date.now() + ms).toISOString().replace(/\.\d+/, '') });
    const ask = { model: OPUS, messages: [user('x')] };
    for (const stream of [false, true]) {
        const heads = { ...limit('requests', '60', '59', 10_000), ...limit('input-tokens', '30000', '29000', 3000), ...limit('output-tokens', '8000', '7900', 95_000) };
        fake.next((rec) => {
            const writeHead = rec.res.writeHead.bind(rec.res);
            rec.res.writeHead = (code, head) => writeHead(code, { ...head, ...heads });
            return play.answer()(rec);
        });
        const { status, headers, text: body } = await request(gw, { body: { ...ask, stream } });
        assert.equal(status, 200, body);
        const { 'x-ratelimit-reset-requests': soon, 'x-ratelimit-reset-tokens': later, ...counts } = told(headers);
        assert.deepEqual(counts, {
            'x-ratelimit-limit-requests': '60',
            'x-ratelimit-remaining-requests': '59',
            'x-ratelimit-limit-tokens': '8000', // the tighter of the two
            'x-ratelimit-remaining-tokens': '7900',
        });
        assert.match(soon, /^([5-9]|10)s$/);
        assert.match(later, /^1m(2\d|3[0-5])s$/);
    }
    fake.next(play.answer());
    const own = { 'x-ratelimit-limit-requests': '50', 'x-ratelimit-remaining-requests': '49', 'x-ratelimit-reset-requests': '0ms' };
    assert.deepEqual(told((await request(gw, { body: ask })).headers), own, 'nothing of an earlier answer, and no time that has passed');
});

scenario('plain, streamed, usage', async (t) => {
    const { fake, gw } = await pair(t);
    const client = openai(gw);
    const whole = await client.chat.completions.create({ model: OPUS, messages: [user('Hi')] });
    assert.equal(whole.choices[0].message.content, 'Hello from Claude.');
    assert.equal(whole.choices[0].finish_reason, 'stop');
    assert.equal(whole.model, OPUS);
    assert.deepEqual([whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens], [35, 12, 47]);
    assert.deepEqual([whole.usage.prompt_tokens_details.cached_tokens, whole.usage.prompt_tokens_details.cache_write_tokens], [7, 3]);
    assert.equal(fake.last.headers['x-api-key'], fake.last.key);
    assert.equal(fake.last.headers['anthropic-version'], '2023-06-01');

    const seen = await collect(await client.chat.completions.create({ model: OPUS, messages: [user('Hi')], stream: true, stream_options: { include_usage: true } }));
    assert.equal(seen.content, 'Hello from Claude.');
    assert.ok(seen.chunks.length > 4, 'as it comes');
    assert.equal(seen.finish, 'stop');
    assert.equal(seen.usage.total_tokens, 47);
    const silent = await collect(await client.chat.completions.create({ model: OPUS, messages: [user('Hi')], stream: true }));
    assert.ok(silent.usage === null && silent.chunks.every((c) => c.choices.length === 1));
});

scenario('several turns with system texts, pictures and documents', async (t) => {
    const { fake, gw } = await pair(t);
    await openai(gw).chat.completions.create({
        model: OPUS,
        user: 'ann',
        messages: [
            { role: 'system', content: 'Be brief.' },
            user([{ type: 'text', text: 'see' }, { type: 'image_url', image_url: { url: `data:image/png;base64,${PIXEL}` } }, { type: 'image_url', image_url: { url: 'https://example.com/p.png' } }]),
            { role: 'assistant', content: 'Seen.' },
            { role: 'developer', content: 'Be kind.' },
            user([{ type: 'text', text: 'and this' }, { type: 'file', file: { filename: 'a.pdf', file_data: `data:application/pdf;base64,${Buffer.from('%PDF').toString('base64')}` } }]),
        ],
    });
    const { json } = fake.last;
    assert.equal(json.system, 'Be brief.\n\nBe kind.');
    assert.deepEqual(json.messages.map((m) => [m.role, ...m.content.map((b) => b.type)]), [['user', 'text', 'image', 'image'], ['assistant', 'text'], ['user', 'text', 'document']]);
    assert.deepEqual(json.messages[0].content[2].source, { type: 'url', url: 'https://example.com/p.png' });
    assert.deepEqual(json.metadata, { user_id: 'ann' });
});

scenario('tools: parallel calls, streamed and not, and their results', async (t) => {
    const { fake, gw } = await pair(t);
    const client = openai(gw);
    const calls = [
        text('I look.'),
        { type: 'tool_use', id: 'toolu_1', name: 'weather', input: { at: 'Zürich "HB"' } },
        { type: 'tool_use', id: 'toolu_2', name: 'weather', input: {} },
    ];
    fake.always(play.answer((body) => (body.messages.at(-1).content[0].type === 'tool_result' ? { content: [text('Fine.')] } : { content: calls, stop_reason: 'tool_use' })));
    const ask = { model: OPUS, messages: [user('Weather?')], tools: [WEATHER], tool_choice: 'required', parallel_tool_calls: true };
    const whole = (await client.chat.completions.create(ask)).choices[0];
    const seen = await collect(await client.chat.completions.create({ ...ask, stream: true }));
    assert.deepEqual(fake.last.json.tool_choice, { type: 'any' });
    assert.equal(whole.finish_reason, 'tool_calls');
    assert.equal(seen.finish, 'tool_calls');
    assert.deepEqual(seen.calls, whole.message.tool_calls);
    assert.deepEqual(whole.message.tool_calls.map((c) => JSON.parse(c.function.arguments)), [{ at: 'Zürich "HB"' }, {}]);
    assert.equal(whole.message.content, 'I look.');

    const results = whole.message.tool_calls.map((c, i) => ({ role: 'tool', tool_call_id: c.id, content: `result ${i}` }));
    const again = await client.chat.completions.create({ ...ask, tool_choice: 'auto', messages: [user('Weather?'), whole.message, ...results.reverse(), user('and?')] });
    assert.equal(again.choices[0].message.content, 'Fine.');
    assert.deepEqual(fake.last.json.messages.map((m) => m.role), ['user', 'assistant', 'user']);
    assert.deepEqual(fake.last.json.messages[2].content.map((b) => b.type), ['tool_result', 'tool_result', 'text']);
});

scenario('ids of calls that other platforms made', async (t) => {
    const { fake, gw } = await pair(t);
    await openai(gw).chat.completions.create({
        model: OPUS,
        messages: [
            user('go'),
            { role: 'assistant', content: null, tool_calls: [{ id: 'functions.f:0', type: 'function', function: { name: 'f', arguments: 'no json' } }, { id: `call_${'x'.repeat(80)}`, type: 'function', function: { name: 'f', arguments: '' } }] },
            { role: 'tool', tool_call_id: 'functions.f:0', content: 'a' },
            { role: 'tool', tool_call_id: `call_${'x'.repeat(80)}`, content: 'b' },
        ],
    });
    const [calls, results] = [fake.last.json.messages[1].content, fake.last.json.messages[2].content];
    assert.deepEqual(results.map((r) => r.tool_use_id), calls.map((c) => c.id));
    assert.deepEqual(calls.map((c) => c.input), [{ raw: 'no json' }, {}]);
});

scenario('thinking: effort, budget, and back before its calls', async (t) => {
    const { fake, gw } = await pair(t);
    const client = openai(gw);
    fake.always(play.answer((body) =>
        body.tools && body.messages.at(-1).content[0].type !== 'tool_result'
            ? { content: [fake.thinking('Let me look, carefully.'), { type: 'redacted_thinking', data: fake.sign('redacted') }, text('Looking.'), { type: 'tool_use', id: 'toolu_9', name: 'weather', input: { at: 'Rom' } }], stop_reason: 'tool_use' }
            : { content: [fake.thinking('Hm.'), text('Done.')], usage: { ...USAGE, output_tokens: 12, output_tokens_details: { thinking_tokens: 5 } } },
    ));
    const plain = await client.chat.completions.create({ model: OPUS, reasoning_effort: 'xhigh', messages: [user('Hi')] });
    assert.deepEqual(fake.last.json.thinking, { type: 'adaptive', display: 'summarized' });
    assert.deepEqual(fake.last.json.output_config, { effort: 'xhigh' });
    assert.equal(plain.choices[0].message.reasoning_content, 'Hm.');
    assert.equal(plain.usage.completion_tokens_details.reasoning_tokens, 5);

    for (const stream of [false, true]) {
        const ask = { model: SONNET, reasoning_effort: 'medium', temperature: 0.5, messages: [user(`Weather? ${stream}`)], tools: [WEATHER] };
        const first = stream
            ? await collect(await client.chat.completions.create({ ...ask, stream }))
            : await client.chat.completions.create(ask).then((a) => ({ content: a.choices[0].message.content, reasoning: a.choices[0].message.reasoning_content, calls: a.choices[0].message.tool_calls }));
        assert.deepEqual(fake.last.json.thinking, { type: 'enabled', budget_tokens: 4096 });
        assert.equal(first.reasoning, 'Let me look, carefully.');
        const back = [...ask.messages, { role: 'assistant', content: first.content, tool_calls: first.calls }, { role: 'tool', tool_call_id: 'toolu_9', content: 'sunny' }];
        const second = await client.chat.completions.create({ ...ask, messages: back });
        assert.equal(second.choices[0].message.content, 'Done.');
        assert.deepEqual(fake.last.json.messages[1].content.map((b) => b.type), ['thinking', 'redacted_thinking', 'text', 'tool_use']);
        assert.deepEqual(fake.last.json.thinking, { type: 'enabled', budget_tokens: 4096 });
    }
    // after a restart it is not known any more: the answer comes without thinking
    const forgotten = [user('x'), { role: 'assistant', content: null, tool_calls: [{ id: 'toolu_old', type: 'function', function: { name: 'weather', arguments: '{}' } }] }, { role: 'tool', tool_call_id: 'toolu_old', content: 'y' }];
    const without = await client.chat.completions.create({ model: SONNET, reasoning_effort: 'low', messages: forgotten, tools: [WEATHER] }).withResponse();
    assert.equal(fake.last.json.thinking, undefined);
    assert.match(without.response.headers.get('x-chatmux-dropped'), /reasoning_effort/);
    await client.chat.completions.create({ model: `${OPUS}-thinking`, messages: [user('by name')] });
    assert.deepEqual([fake.last.json.model, fake.last.json.thinking.type], [OPUS, 'adaptive']);
});

scenario('schemas, stop, length, sampling, and what is dropped', async (t) => {
    const { fake, gw } = await pair(t);
    const client = openai(gw);
    const schema = { $schema: 'x', type: 'object', properties: { a: { type: 'integer', minimum: 1 }, b: { oneOf: [{ type: 'string' }, { type: 'object', properties: {} }] } } };
    fake.next(play.answer({ content: [text('{"a":1}')] }));
    const made = await client.chat.completions.create({ model: OPUS, messages: [user('JSON')], response_format: { type: 'json_schema', json_schema: { name: 'n', schema, strict: true } } });
    assert.equal(made.choices[0].message.content, '{"a":1}');
    assert.equal(fake.last.json.output_config.format.schema.properties.b.anyOf.length, 2);
    await client.chat.completions.create({ model: OPUS, messages: [user('JSON')], response_format: { type: 'json_object' } });
    assert.match(fake.last.json.system, /JSON object/);

    fake.next(play.answer({ stop_reason: 'stop_sequence', stop_sequence: 'END' }));
    const stopped = await client.chat.completions.create({ model: OPUS, messages: [user('x')], stop: ['END', ' '] });
    assert.deepEqual(fake.last.json.stop_sequences, ['END']);
    assert.equal(stopped.choices[0].finish_reason, 'stop');
    fake.next(play.answer({ stop_reason: 'max_tokens' }));
    const cut = await client.chat.completions.create({ model: SONNET, messages: [user('x')], max_completion_tokens: 7, temperature: 1.7, top_p: 0.5 });
    assert.equal(cut.choices[0].finish_reason, 'length');
    assert.deepEqual([fake.last.json.max_tokens, fake.last.json.temperature, fake.last.json.top_p], [7, 1, undefined]);
    fake.next(play.answer({ content: [], stop_reason: 'refusal', stop_details: { type: 'refusal', category: null, explanation: 'no' } }));
    assert.equal((await client.chat.completions.create({ model: OPUS, messages: [user('x')] })).choices[0].finish_reason, 'content_filter');

    const { response } = await client.chat.completions.create({ model: OPUS, messages: [user('x')], temperature: 0.2, seed: 1, logprobs: true, presence_penalty: 1 }).withResponse();
    assert.equal(response.headers.get('x-chatmux-dropped'), 'presence_penalty, seed, logprobs, temperature');
    for (const [member, value] of [['n', 2], ['messages', [user([{ type: 'input_audio', input_audio: { data: 'UklG', format: 'wav' } }])]]])
        await assert.rejects(client.chat.completions.create({ model: OPUS, messages: [user('x')], [member]: value }), (e) => e.status === 400 && e.param === member);
});

scenario('what models can do is read from the list', async (t) => {
    const { fake, gw } = await pair(t, { provider: { models: null } });
    fake.pageMax = 4; // in pages
    await until(async () => (await request(gw, { path: '/v1/models' })).json.data.some((m) => m.id === 'claude-fable-5') , 'the list');
    const opus = (await request(gw, { path: `/v1/models/${OPUS}` })).json;
    assert.deepEqual([opus.max_input_tokens, opus.max_tokens], [200_000, 128_000]);
    await openai(gw).chat.completions.create({ model: 'claude-opus-5', reasoning_effort: 'none', messages: [user('x')] });
    assert.deepEqual(fake.last.json.thinking, { type: 'disabled' });
    await openai(gw).chat.completions.create({ model: 'claude-fable-5', reasoning_effort: 'none', messages: [user('x')] });
    assert.equal(fake.last.json.thinking, undefined); // it always thinks
});

const FAILURES = [
    // status, type, text, headers → what OpenAI's client is told; whether another account is tried
    [400, 'invalid_request_error', 'messages: nonsense', {}, 400, null, false],
    [400, 'invalid_request_error', 'prompt is too long: 250001 tokens > 200000 maximum', {}, 400, 'context_length_exceeded', false],
    [413, 'request_too_large', 'Request exceeds the maximum size', {}, 413, null, false],
    [400, 'invalid_request_error', 'Your credit balance is too low to access the Anthropic API.', {}, 429, 'insufficient_quota', true],
    [401, 'authentication_error', 'invalid x-api-key', {}, 502, 'upstream_auth', true],
    [402, 'billing_error', 'pay', {}, 429, 'insufficient_quota', true],
    [403, 'permission_error', 'This organization has been disabled.', {}, 502, 'upstream_auth', true],
    [403, 'permission_error', 'not with this key', {}, 403, 'model_not_found', true],
    [404, 'not_found_error', 'model: gone', {}, 404, 'model_not_found', true],
    [429, 'rate_limit_error', 'slow down', { 'retry-after': '21' }, 429, 'rate_limit_exceeded', true],
    [429, 'rate_limit_error', 'the month is over', {}, 429, 'insufficient_quota', true],
    [500, 'api_error', 'Internal server error', {}, 502, 'upstream_error', true],
    [529, 'overloaded_error', 'Overloaded', {}, 503, 'overloaded', true],
    [504, 'timeout_error', 'late', {}, 502, 'upstream_error', true],
];

scenario('every error class: another account first, then an error in OpenAI’s words', async (t) => {
    const { fake, gw } = await pair(t, { config: { auth: { admin_secret: 'sk-admin' }, upstream: { breaker_rate: 0 } } });
    const { data: accounts } = (await request(gw, { path: '/admin/api/credentials', key: 'sk-admin' })).json;
    const reset = () => Promise.all(accounts.map(({ id }) => request(gw, { path: `/admin/api/credentials/${id}/reset`, key: 'sk-admin', body: {} })));
    const ask = (more) => openai(gw).chat.completions.create({ model: OPUS, messages: [user('x')], ...more });
    for (const [status, type, message, headers, told, code, tries] of FAILURES) {
        const fail = play.error(status, type, message, headers);
        const before = fake.requests.length;
        fake.next(fail);
        if (tries) assert.equal((await ask()).choices[0].message.content, 'Hello from Claude.', `${status} ${message}: hidden`);
        else await assert.rejects(ask(), (e) => e.status === told);
        assert.equal(fake.requests.length, before + (tries ? 2 : 1), `${status} ${message}`);
        await reset();
        fake.always(fail);
        await assert.rejects(ask({ stream: true }), (e) => {
            assert.deepEqual([e.status, e.code], [told, code], message);
            assert.ok(!/sk-ant/.test(e.message), e.message);
            return true;
        });
        fake.always(play.answer());
        await reset();
    }
});

scenario('streams that break: hidden before the first word, told afterwards', async (t) => {
    const { fake, gw } = await pair(t);
    const client = openai(gw);
    const ask = { model: OPUS, messages: [user('x')], stream: true };
    for (const how of ['error', 'cut', 'end']) {
        fake.next(play.broken(how, { text: '' }));
        assert.equal((await collect(await client.chat.completions.create(ask))).content, 'Hello from Claude.', how);
        fake.next(play.broken(how));
        let content = '';
        await assert.rejects(async () => {
            for await (const chunk of await client.chat.completions.create(ask)) content += chunk.choices[0]?.delta.content ?? '';
        }, (e) => e.code === (how === 'error' ? 'overloaded' : 'upstream_cut'), how);
        assert.equal(content, 'half of it');
    }
});

// ---- Claude's own SDK: bytes --------------------------------------------------------------------------------------------

// Spacing, order, number spelling and escapes that a parser would not give back.
const ODD = String.raw`{ "max_tokens" : 16, "messages":[{"role":"user","content":[{"text":"caf\u00e9 \/ é","type":"text","cache_control":{"type":"ephemeral"}}]} ] ,
  "model":"claude-sonnet-4-5","temperature":1.00e0 ,"system":[{"type":"text","text":"x"}], "context_management":{"edits":[ ]}}  `;

scenario('bytes pass in both directions', async (t) => {
    const { fake, gw } = await pair(t, { provider: { models: ['ours=claude-sonnet-4-5', SONNET] } });
    const headers = { 'anthropic-version': '2023-06-01', 'anthropic-beta': 'context-management-2025-06-27,later-2030', 'anthropic-later': 'x', 'x-claude-code-session-id': 's', 'x-stainless-lang': 'js' };
    for (const [sent, seen] of [[ODD, ODD], [ODD.replace(SONNET, 'ours'), ODD], [ODD.replace('"max_tokens"', '"stream":true,"max_tokens"'), null]]) {
        const answer = await request(gw, { path: '/v1/messages?beta=true', headers, body: sent });
        assert.equal(answer.status, 200, answer.text);
        assert.equal(fake.last.body.toString(), seen ?? sent);
        assert.ok(answer.bytes.equals(fake.last.sent), 'the answer as it came');
        assert.equal(fake.last.url, '/v1/messages?beta=true');
        assert.equal(fake.last.headers['anthropic-beta'], headers['anthropic-beta']);
        assert.equal(fake.last.headers['anthropic-later'], 'x');
        assert.equal(answer.headers['request-id'], 'req_fake');
        assert.equal(answer.headers['anthropic-organization-id'], undefined);
        assert.equal(answer.headers['anthropic-ratelimit-requests-remaining'], '49');
    }
});

scenario('an error body goes to a client of the dialect as it came', async (t) => {
    const { fake, gw } = await pair(t);
    const long = `messages.0.content: ${'a long list, '.repeat(200)}end`;
    for (const [status, type, message] of [[400, 'invalid_request_error', long], [413, 'request_too_large', 'x'], [400, 'invalid_request_error', 'prompt is too long: 9 tokens > 8 maximum']]) {
        fake.next(play.error(status, type, message));
        const answer = await request(gw, { path: '/v1/messages', headers: { 'anthropic-version': '2023-06-01' }, body: { model: SONNET, max_tokens: 1, messages: [user('x')] } });
        assert.equal(answer.status, status);
        assert.ok(answer.bytes.equals(fake.last.sent));
    }
    // what the gateway could not know is judged by the platform, in its words
    const strays = { model: SONNET, max_tokens: 1, messages: [user([{ type: 'tool_result', tool_use_id: 'nobody', content: 'x' }])] };
    fake.refusals.length = 0;
    await assert.rejects(claude(gw).messages.create(strays), (e) => e.status === 400 && /unexpected `tool_use_id`/.test(e.message));
    assert.equal(fake.refusals.length, 1);
    fake.refusals.length = 0;
});

scenario('Claude’s SDK: whole, streamed, thinking, tools, counting, models', async (t) => {
    const { fake, gw } = await pair(t);
    const client = claude(gw);
    const ask = { model: OPUS, max_tokens: 5000, messages: [user('Hi')] };
    const { data, request_id: id } = await client.messages.create(ask).withResponse();
    assert.equal(data.content[0].text, 'Hello from Claude.');
    assert.equal(id, 'req_fake');
    assert.equal(fake.last.headers['anthropic-version'], '2026-10-21');

    const calls = () => ({ content: [fake.thinking('Let me look.'), text('Looking.'), { type: 'tool_use', id: 'toolu_1', name: 'look', input: { n: 1 } }, { type: 'tool_use', id: 'toolu_2', name: 'look', input: {} }], stop_reason: 'tool_use' });
    fake.next(play.answer(calls));
    const tools = { ...ask, thinking: { type: 'adaptive' }, tools: [{ name: 'look', input_schema: { type: 'object' } }] };
    const final = await client.messages.stream(tools).finalMessage();
    assert.deepEqual(final.content.map((b) => b.type), ['thinking', 'text', 'tool_use', 'tool_use']);
    assert.deepEqual(final.content[2].input, { n: 1 });
    assert.equal(final.usage.input_tokens, 25);
    const back = { ...tools, messages: [...ask.messages, { role: 'assistant', content: final.content.map(({ citations, ...b }) => b) }, user(['toolu_1', 'toolu_2'].map((tool_use_id) => ({ type: 'tool_result', tool_use_id, content: 'x' })))] };
    assert.equal((await client.messages.create(back)).content[0].text, 'Hello from Claude.');

    assert.equal((await client.messages.countTokens({ model: OPUS, messages: ask.messages })).input_tokens, 42);
    await until(async () => (await request(gw, { path: '/v1/models' })).status === 200, 'models');
});

scenario('what another model’s reasoning left behind does not disturb Claude', async (t) => {
    const { fake, gw } = await pair(t, { config: { 'provider demo': { type: 'demo' } } });
    const client = claude(gw);
    const first = await client.messages.create({ model: 'demo-reasoning', max_tokens: 100, messages: [user('Hi')] });
    assert.equal(first.content[0].type, 'thinking');
    const messages = [user('Hi'), { role: 'assistant', content: first.content.map(({ citations, ...b }) => b) }, user('more')];
    await client.messages.create({ model: SONNET, max_tokens: 100, messages });
    assert.deepEqual(fake.last.json.messages[1].content, [{ type: 'text', text: 'Hi' }]);
});

scenario('account tokens are bearers, with their beta', async (t) => {
    const { fake, gw } = await pair(t, { fake: { keys: ['sk-ant-oat01-token'] } });
    await claude(gw).messages.create({ model: OPUS, max_tokens: 10, messages: [user('x')] }, { headers: { 'anthropic-beta': 'other-1' } });
    assert.equal(fake.last.headers['anthropic-beta'], 'other-1,oauth-2025-04-20');
    await openai(gw).chat.completions.create({ model: OPUS, messages: [user('x')] });
    assert.equal(fake.last.headers['anthropic-beta'], 'oauth-2025-04-20');
});

scenario('failures of the own dialect: hidden, told, never a clean end', async (t) => {
    const { fake, gw } = await pair(t);
    const client = claude(gw);
    const ask = { model: OPUS, max_tokens: 10, messages: [user('x')] };
    fake.next(play.error(529, 'overloaded_error', 'Overloaded'));
    assert.equal((await client.messages.create(ask)).content[0].text, 'Hello from Claude.');
    fake.next(play.broken('error', { text: '' }));
    assert.equal((await client.messages.stream(ask).finalMessage()).content[0].text, 'Hello from Claude.');
    for (const how of ['error', 'cut', 'end']) {
        fake.next(play.broken(how));
        let seen = '';
        const stream = client.messages.stream(ask).on('text', (piece) => (seen += piece));
        await assert.rejects(stream.finalMessage(), (e) => e instanceof Anthropic.APIError && e.type === (how === 'error' ? 'overloaded_error' : 'api_error'), how);
        assert.equal(seen, 'half of it');
    }
    fake.always(play.error(429, 'rate_limit_error', 'slow down', { 'retry-after': '33' }));
    await assert.rejects(client.messages.create(ask), (e) => e.status === 429 && e.type === 'rate_limit_error' && Number(e.headers.get('retry-after')) >= 32);
});

scenario('batches and files are passed on, through the SDK', async (t) => {
    const other = await startFakeOpenai(t);
    const { fake, gw } = await pair(t, { fake: { keys: ['sk-ant-api03-one'] }, config: { 'provider up': openaiFor(other, { 'x.tasks': 'chat pass' }) } });
    const client = claude(gw);
    const params = { model: OPUS, max_tokens: 9, messages: [user('Hi')] };
    const made = await client.messages.batches.create({ requests: [{ custom_id: 'a', params }, { custom_id: 'b', params }] });
    assert.equal(made.processing_status, 'in_progress');
    const batch = await client.messages.batches.retrieve(made.id);
    assert.equal(batch.results_url, `/v1/messages/batches/${made.id}/results`, 'not past the gateway');
    const listed = [];
    for await (const b of client.messages.batches.list({ limit: 5 })) listed.push([b.id, b.results_url]);
    assert.deepEqual(listed, [[made.id, batch.results_url]]);
    assert.equal(fake.last.url, '/v1/messages/batches?limit=5');
    const results = [];
    for await (const { custom_id: name, result } of await client.messages.batches.results(made.id)) results.push([name, result.message.content[0].text]);
    assert.deepEqual(results, [['a', '"results_url":"a"'], ['b', '"results_url":"b"']]);
    assert.equal((await client.messages.batches.cancel(made.id)).processing_status, 'canceling');
    assert.equal((await client.messages.batches.delete(made.id)).type, 'message_batch_deleted');
    await assert.rejects(client.messages.batches.retrieve(made.id), (e) => e.status === 404 && e.type === 'not_found_error' && /No such object/.test(e.message));
    fake.refusals.length = 0;

    const headers = { 'anthropic-version': '2023-06-01', 'anthropic-beta': 'files-api-2025-04-14' };
    const body = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nGr\u00fc\u00dfe\r\n--x--\r\n';
    const file = (await request(gw, { path: '/v1/files', headers: { ...headers, 'content-type': 'multipart/form-data; boundary=x' }, body })).json;
    assert.equal(file.filename, 'a.txt');
    assert.equal((await request(gw, { path: `/v1/files/${file.id}/content`, headers })).text, 'Gr\u00fc\u00dfe');
    assert.equal((await request(gw, { path: `/v1/files/${file.id}`, method: 'DELETE', headers })).json.type, 'file_deleted');
    assert.equal(other.requests.length, 0, 'whoever says anthropic-version does not mean OpenAI');

    const named = await request(gw, { path: '/v1/files', headers: { 'x-chatmux-target': 'claude', 'anthropic-beta': headers['anthropic-beta'] } });
    assert.equal(named.headers['x-chatmux-provider'], 'claude', 'nor does whoever names a provider that speaks nothing else');
    assert.equal(fake.last.url, '/v1/files');
    assert.equal(fake.last.headers['anthropic-version'], '2023-06-01');

    fake.next(play.error(529, 'overloaded_error', 'Overloaded'));
    await assert.rejects(client.messages.batches.retrieve('x'), (e) => e.status === 529 && e.type === 'overloaded_error');
    fake.next(play.error(401, 'authentication_error', 'invalid x-api-key'));
    await assert.rejects(client.messages.batches.create({ requests: [] }), (e) => e.status === 502 && e.type === 'api_error');
});

scenario('nobody to pass a batch on to', async (t) => {
    const other = await startFakeOpenai(t);
    const gw = await startGateway(t, { config: { 'provider up': openaiFor(other, { 'x.tasks': 'chat pass' }) } });
    await assert.rejects(claude(gw).messages.batches.retrieve('x'), (e) => e.status === 404 && e.type === 'not_found_error');
    assert.equal(other.requests.length, 0);
});

scenario('an account is checked at no cost', async (t) => {
    const fake = await startFakeAnthropic(t, { strict: false });
    const gw = await startGateway(t, { config: { 'provider claude': providerFor(fake, { credentials: [fake.keys[0], 'sk-ant-api03-wrong'] }), auth: { admin_secret: 'sk-admin' } } });
    const list = (await request(gw, { path: '/admin/api/credentials', key: 'sk-admin' })).json.data;
    const check = async ({ id }) => (await request(gw, { path: `/admin/api/credentials/${id}/check`, key: 'sk-admin', body: {} })).json;
    assert.equal((await check(list[0])).ok, true);
    const wrong = await check(list[1]);
    assert.deepEqual([wrong.ok, wrong.state], [false, 'disabled']);
    assert.equal(fake.requests.length, 0, 'no message was asked for');
});

// ---- the fake itself: without its strictness what passes above would say little ---------------------------------------------

const SCHEMA = { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'], additionalProperties: false };
const GOOD = {
    model: SONNET,
    max_tokens: 4000,
    system: [{ type: 'text', text: 's', cache_control: { type: 'ephemeral' } }],
    messages: [
        user([text('see'), { type: 'image', source: { type: 'base64', media_type: 'image/png', data: PIXEL } }]),
        { role: 'assistant', content: [{ type: 'tool_use', id: 'a', name: 'f', input: {} }] },
        user([{ type: 'tool_result', tool_use_id: 'a', content: 'x' }, text('and?')]),
    ],
    tools: [{ name: 'f', input_schema: SCHEMA, strict: true }],
    tool_choice: { type: 'auto' },
    temperature: 0.5,
    stop_sequences: ['END'],
    output_config: { format: { type: 'json_schema', schema: SCHEMA } },
    metadata: { user_id: 'u' },
};
const HEADERS = { 'x-api-key': 'sk-ant-api03-one', 'anthropic-version': '2023-06-01', 'content-type': 'application/json', accept: 'application/json', 'user-agent': 'chatmux/0' };

scenario('the fake takes a good request and refuses each wrong one', async (t) => {
    const fake = await startFakeAnthropic(t, { strict: false });
    const send = (body, headers = {}, path = '/v1/messages') => {
        const all = Object.fromEntries(Object.entries({ ...HEADERS, ...headers }).filter(([, v]) => v !== undefined));
        return request({ port: fake.port }, { path, key: null, headers: all, body });
    };
    const good = await send(GOOD);
    assert.equal(good.status, 200, good.text);
    const [first, call, results] = GOOD.messages;
    const with_ = (...messages) => ({ messages });
    const wrong = {
        'unknown member': ['foo: Extra', { foo: 1 }],
        'beta member': ['context_management: Extra', { context_management: {} }],
        'unknown model': ['model: gpt-4o', { model: 'gpt-4o' }],
        'no length': ['max_tokens: Field required', { max_tokens: undefined }],
        'too long': ['max_tokens: 64001 > 64000', { max_tokens: 64_001 }],
        'no messages': ['messages: List should have at least 1', { messages: [] }],
        'blank system': ['system: text content', { system: ' ' }],
        'too hot': ['temperature: Input should be a number', { temperature: 1.1 }],
        'two kinds of sampling': ['temperature: `temperature` and `top_p` cannot both', { top_p: 0.5 }],
        'blank stop': ['stop_sequences.0: each', { stop_sequences: [' '] }],
        'a string of a tool': ['tools.0.input_schema: Input should be an object', { tools: [{ name: 'f', input_schema: '{}' }] }],
        'no type in a schema': ['tools.0.input_schema.type: Field required', { tools: [{ name: 'f', input_schema: {} }] }],
        'an odd name': ['tools.0.name: String should match', { tools: [{ name: 'f.g', input_schema: SCHEMA }] }],
        'the same name twice': ['tools: Tool names must be unique', { tools: [GOOD.tools[0], GOOD.tools[0]] }],
        'strict without closing': ["tools.0.input_schema: For 'object' type, 'additionalProperties'", { tools: [{ name: 'f', strict: true, input_schema: { type: 'object' } }] }],
        'a choice without tools': ['tool_choice: tool_choice may only', { tools: undefined }],
        'an unknown tool': ["tool_choice: Tool 'g' not found", { tool_choice: { type: 'tool', name: 'g' } }],
        'no parallel with none': ['tool_choice.disable_parallel_tool_use: Extra', { tool_choice: { type: 'none', disable_parallel_tool_use: true } }],
        'an open schema': ["output_config.format.schema: For 'object' type, 'additionalProperties'", { output_config: { format: { type: 'json_schema', schema: { type: 'object' } } } }],
        'a minimum': ["output_config.format.schema: For 'integer' type, property 'minimum'", { output_config: { format: { type: 'json_schema', schema: { type: 'integer', minimum: 1 } } } }],
        'oneOf': ["output_config.format.schema: For 'undefined' type, property 'oneOf'", { output_config: { format: { type: 'json_schema', schema: { oneOf: [] } } } }],
        'effort': ['output_config.effort: This model does not', { output_config: { effort: 'low' } }],
        'adaptive': ['thinking: "thinking.type.adaptive" is not supported', { thinking: { type: 'adaptive' } }],
        'a small budget': ['thinking.budget_tokens: Input should be between 1024', { thinking: { type: 'enabled', budget_tokens: 1023 }, temperature: 1 }],
        'a budget over the length': ['max_tokens: `max_tokens` must be greater', { thinking: { type: 'enabled', budget_tokens: 4000 }, temperature: 1, messages: [first] }],
        'heat and thinking': ['temperature: `temperature` may only be set to 1', { thinking: { type: 'enabled', budget_tokens: 2000 }, messages: [first] }],
        'no thinking before calls': ['messages.1.content.0.type: Expected `thinking`', { thinking: { type: 'enabled', budget_tokens: 2000 }, temperature: 1 }],
        'a long name of a user': ['metadata.user_id: String should have at most 512', { metadata: { user_id: 'x'.repeat(513) } }],
        'assistant first': ['messages.0: first message must use', with_({ role: 'assistant', content: 'x' }, user('y'))],
        'a system turn': ['messages.1.role: Input', with_(user('x'), { role: 'system', content: 'y' })],
        'a tool turn': ['messages.1.role: Input', with_(user('x'), { role: 'tool', content: 'y' })],
        'blank text': ['messages.0.content.0: text content blocks', with_(user([text(' ')]))],
        'no blocks': ['messages.0.content: all messages must have non-empty', with_(user([]))],
        'no result': ['messages.1: `tool_use` ids were found without', with_(first, call, user('x'))],
        'a late result': ['messages.2: `tool_result` blocks must come before', with_(first, call, user([text('x'), results.content[0]]))],
        'a stray result': ['messages.0: unexpected `tool_use_id`', with_(user([{ type: 'tool_result', tool_use_id: 'b' }]))],
        'two results': ['messages.2: each tool_use must have a single result', with_(first, call, user([results.content[0], results.content[0]]))],
        'a string of arguments': ['messages.1.content.0.input: Input should be a valid dictionary', with_(first, { role: 'assistant', content: [{ type: 'tool_use', id: 'a', name: 'f', input: '{}' }] }, results)],
        'an odd id': ['messages.1.content.0.id: String should match', with_(first, { role: 'assistant', content: [{ type: 'tool_use', id: 'a:1', name: 'f', input: {} }] }, user([{ type: 'tool_result', tool_use_id: 'a:1' }]))],
        'a prefill with a space': ['messages: final assistant content cannot end', { messages: [user('x'), { role: 'assistant', content: 'y ' }], output_config: undefined }],
        'a prefill of Opus': ['messages: This model does not support assistant message prefill', { model: OPUS, messages: [user('x'), { role: 'assistant', content: 'y' }], temperature: undefined, output_config: undefined }],
        'heat of Opus': ['temperature: temperature is not supported', { model: OPUS }],
        'image/jpg': ['messages.0.content.0.source.media_type: Input should be', with_(user([{ type: 'image', source: { type: 'base64', media_type: 'image/jpg', data: '/9j/' } }]))],
        'another type than the bytes': ['messages.0.content.0.source.media_type: The image was specified', with_(user([{ type: 'image', source: { type: 'base64', media_type: 'image/jpeg', data: PIXEL } }]))],
        'a data URL': ['messages.0.content.0.source.url: String should match', with_(user([{ type: 'image', source: { type: 'url', url: `data:image/png;base64,${PIXEL}` } }]))],
        'an unsigned thought': ['messages.1.content.0: Invalid `signature`', with_(user('x'), { role: 'assistant', content: [{ type: 'thinking', thinking: 'x', signature: '' }, text('y')] }, user('z'))],
        'a changed thought': ['messages.1.content.0: Invalid `signature`', with_(user('x'), { role: 'assistant', content: [{ ...fake.thinking('x'), thinking: 'y' }, text('y')] }, user('z'))],
        'five breakpoints': ['system.4.cache_control: A maximum of 4', { system: Array(5).fill(GOOD.system[0]) }],
    };
    const refuses = (what, reason, answer, status = 400) => {
        assert.equal(answer.status, status, `${what}: ${answer.text}`);
        const { type, message } = answer.json.error;
        assert.equal(type, { 400: 'invalid_request_error', 401: 'authentication_error', 404: 'not_found_error' }[status], what);
        assert.ok(message.startsWith(reason), `${what}: refused for another reason: ${message}`);
    };
    for (const [what, [reason, change]] of Object.entries(wrong)) refuses(what, reason, await send({ ...GOOD, ...change }), what === 'unknown model' ? 404 : 400);
    for (const [what, [reason, headers]] of Object.entries({
        'no key': ['x-api-key header is required', { 'x-api-key': undefined }],
        'a wrong key': ['invalid x-api-key', { 'x-api-key': 'sk-ant-api03-onf' }],
        'two credentials': ['two credentials', { authorization: 'Bearer sk-ant-api03-one' }],
        'no version': ['anthropic-version: header is required', { 'anthropic-version': undefined }],
        'another version': ['anthropic-version: header is required', { 'anthropic-version': '2024-01-01' }],
        'no type': ['content-type is text/plain', { 'content-type': 'text/plain' }],
        'a cookie': ['leak: the header cookie', { cookie: 'a=b' }],
        'the client’s key': ['leak: the request head', { 'anthropic-x': CLIENT_KEY }],
        'a header of another dialect': ['unexpected header openai-organization', { 'openai-organization': 'x' }],
        'sampling in the newer version': ['temperature: Extra', { 'anthropic-version': '2026-10-21' }],
    }))
        refuses(what, reason, await send(GOOD, headers), /key|credentials/.test(reason) && !reason.startsWith('leak') ? 401 : 400);
    refuses('another path', 'Not found', await send(GOOD, {}, '/messages'), 404);
    refuses('a query', 'unexpected query ?key=x', await send(GOOD, {}, '/v1/messages?key=x'));
    refuses('accept of another call', 'accept is application/json', await send({ ...GOOD, stream: true }));
    refuses('a length where tokens are counted', 'max_tokens: Extra', await send(GOOD, {}, '/v1/messages/count_tokens'));
});
