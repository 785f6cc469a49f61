// The Messages surface with Anthropic's own SDK, over a provider that does not speak it.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import { UPSTREAMS } from '../lib/dialect_upstreams.mjs';
import { CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import * as gemini from '../lib/fake_gemini.mjs';
import * as hix from '../lib/fake_hix.mjs';

const demo = (provider, config) => ({ config: { 'provider demo': { type: 'demo', ...provider }, ...config } });
const sdkFor = (gw, options) =>
    new Anthropic({ baseURL: gw.base.replace(/\/v1$/, ''), apiKey: CLIENT_KEY, maxRetries: 0, ...options });
const HI = { model: 'demo', max_tokens: 100, messages: [{ role: 'user', content: 'Hi there' }] };
const TOOL = { name: 'look', description: 'looks', input_schema: { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] } };

scenario('a plain answer, a stream, and the stream helper', async (t) => {
    const gw = await startGateway(t, demo());
    const client = sdkFor(gw);
    const { data: message, response, request_id: id } = await client.messages.create({ ...HI, system: 'Be brief.' }).withResponse();
    assert.equal(message.type, 'message');
    assert.match(message.id, /^msg_/);
    assert.deepEqual(message.content, [{ type: 'text', text: 'Hi there' }]);
    assert.equal(message.stop_reason, 'end_turn');
    assert.equal(message.model, 'demo');
    assert.ok(message.usage.input_tokens > 0 && message.usage.output_tokens > 0);
    assert.equal(id, response.headers.get('x-request-id'));

    const types = [];
    for await (const event of await client.messages.create({ ...HI, stream: true })) types.push(event.type);
    assert.deepEqual([types[0], types[1], ...types.slice(-3)],
        ['message_start', 'content_block_start', 'content_block_stop', 'message_delta', 'message_stop']);

    const final = await client.messages.stream(HI).finalMessage();
    assert.equal(final.content[0].text, 'Hi there');
    assert.equal(final.stop_reason, 'end_turn');
    assert.ok(final.usage.input_tokens > 0 && final.usage.output_tokens > 0);
});

scenario('thinking stands before the text, and goes where it is not wanted', async (t) => {
    const gw = await startGateway(t, demo());
    const client = sdkFor(gw);
    const ask = { ...HI, model: 'demo-reasoning' };
    const whole = await client.messages.create(ask);
    const streamed = await client.messages.stream(ask).finalMessage();
    assert.deepEqual(whole.content.map((b) => b.type), ['thinking', 'text']);
    assert.deepEqual(streamed.content, whole.content);
    assert.ok(whole.usage.output_tokens_details.thinking_tokens > 0);
    const off = await client.messages.create({ ...ask, thinking: { type: 'disabled' } });
    assert.deepEqual(off.content.map((b) => b.type), ['text']);
    // what we gave comes back as a part of the conversation
    const again = await client.messages.create({
        ...ask,
        messages: [...HI.messages, { role: 'assistant', content: whole.content }, { role: 'user', content: 'more' }],
    });
    assert.equal(again.content.at(-1).text, 'more');
});

scenario('a tool’s round trip, streamed and not', async (t) => {
    const gw = await startGateway(t, demo());
    const client = sdkFor(gw);
    const ask = { ...HI, model: 'demo-tool', tools: [TOOL], tool_choice: { type: 'tool', name: 'look' } };
    for (const first of [await client.messages.create(ask), await client.messages.stream(ask).finalMessage()]) {
        assert.equal(first.stop_reason, 'tool_use');
        const call = first.content.at(-1);
        assert.deepEqual([call.type, call.name, call.input], ['tool_use', 'look', { n: 1 }]);
        const second = await client.messages.create({
            ...ask,
            messages: [...HI.messages, { role: 'assistant', content: first.content },
                { role: 'user', content: [{ type: 'tool_result', tool_use_id: call.id, content: 'seven' }] }],
        });
        assert.deepEqual(second.content[0].text, 'seven');
        assert.equal(second.stop_reason, 'end_turn');
    }
});

scenario('tokens are guessed where nobody counts', async (t) => {
    const gw = await startGateway(t, demo({}, { auth: { keys: CLIENT_KEY } }));
    const client = sdkFor(gw);
    const short = await client.messages.countTokens({ model: 'demo', messages: HI.messages });
    const long = await client.messages.countTokens({ model: 'demo', system: 'x'.repeat(4000), tools: [TOOL], messages: HI.messages });
    assert.ok(short.input_tokens >= 1 && long.input_tokens > short.input_tokens + 900);
    await assert.rejects(client.messages.countTokens({ model: 'nobody', messages: HI.messages }), (e) => e.status === 404 && e.type === 'not_found_error');
});

scenario('errors in the dialect, before and inside a stream', async (t) => {
    const gw = await startGateway(t, demo({}, { retry: { retries: 0 } }));
    const client = sdkFor(gw);
    const fail = (word) => client.messages.create({ ...HI, model: 'demo-error', messages: [{ role: 'user', content: word }] });
    for (const [word, status, type] of [
        ['bad_request', 400, 'invalid_request_error'],
        ['context_length', 400, 'invalid_request_error'],
        ['rate_limited', 429, 'rate_limit_error'],
        ['overloaded', 529, 'overloaded_error'],
        ['upstream_down', 502, 'api_error'],
        ['timeout', 504, 'timeout_error'],
    ]) {
        await assert.rejects(fail(word), (e) => {
            assert.deepEqual([e.status, e.type], [status, type], word);
            assert.equal(e.error.request_id, e.requestID);
            assert.equal(e.error.type, 'error');
            return true;
        });
    }
    await assert.rejects(fail('context_length'), /prompt is too long/);
    await assert.rejects(sdkFor(gw, { apiKey: 'sk-wrong' }).messages.create(HI), (e) => e.status === 401 && e.type === 'authentication_error');
    await assert.rejects(client.messages.create({ ...HI, model: 'nobody' }), (e) => e.status === 404 && e.type === 'not_found_error');
    await assert.rejects(client.messages.create({ ...HI, messages: [] }), (e) => e.status === 400 && /^400 .*messages: at least one/.test(e.message));
    await assert.rejects(client.messages.create({ ...HI, tools: [{ type: 'web_search_20260209', name: 'web_search' }] }),
        (e) => e.status === 400 && /web_search_20260209/.test(e.message));
});

scenario('a stream that breaks off ends with an error event', async (t) => {
    const gw = await startGateway(t, demo({ 'x.chunk_ms': '50' }, { server: { drain_timeout: '200ms' } }));
    const stream = sdkFor(gw).messages.stream({ ...HI, messages: [{ role: 'user', content: 'word '.repeat(200) }] });
    await new Promise((seen) => stream.once('text', seen));
    gw.signal('SIGTERM');
    await assert.rejects(stream.finalMessage(), (e) => e.type === 'overloaded_error');
});

scenario('pings keep a silent stream alive', async (t) => {
    const gw = await startGateway(t, demo({ 'x.chunk_ms': '400' }, { stream: { keepalive: '100ms' } }));
    const answer = await request(gw, { path: '/v1/messages', body: { ...HI, stream: true } });
    assert.ok(answer.text.includes('event: ping\ndata: {"type":"ping"}\n\n'));
    assert.ok(answer.text.endsWith('data: {"type":"message_stop"}\n\n'));
});

scenario('what coding clients do first', async (t) => {
    const gw = await startGateway(t, demo());
    assert.equal((await request(gw, { method: 'HEAD', path: '/api/hello', key: null })).status, 200);
    const hello = await request(gw, { method: 'HEAD', path: '/', key: null });
    assert.equal(hello.status, 200);
    const models = await request(gw, { path: '/v1/models?limit=1000', headers: { 'anthropic-version': '2023-06-01' } });
    assert.ok(models.json.data.every((m) => m.type === 'model' && m.id && m.display_name && m.created_at));
    assert.equal(models.json.has_more, false);
    const listed = [];
    for await (const model of sdkFor(gw).models.list()) listed.push(model.id);
    assert.ok(listed.includes('demo'));
    // a bearer token of their own beside the key meant for us, an unknown beta and members nobody here knows
    const answer = await request(gw, {
        path: '/v1/messages?beta=true',
        key: 'sk-ant-oat01-theirs',
        headers: { 'x-api-key': CLIENT_KEY, 'anthropic-version': '2023-06-01', 'anthropic-beta': 'context-management-2025-06-27,later' },
        body: { ...HI, context_management: { edits: [] }, metadata: { user_id: 'u' } },
    });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.headers['x-chatmux-dropped'], 'context_management, metadata.user_id');
});

/** What a coding client says in each turn: betas, cache marks, thinking, housekeeping, schemas with all the trimmings. */
const CODING = {
    headers: {
        'anthropic-version': '2023-06-01', 'anthropic-beta': 'claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,effort-2025-11-24',
        'anthropic-dangerous-direct-browser-access': 'true', 'x-app': 'cli', 'x-claude-code-session-id': '0b7c', 'x-stainless-lang': 'js',
    },
    body: {
        max_tokens: 32_000,
        system: [{ type: 'text', text: 'You are a coding agent.', cache_control: { type: 'ephemeral' } }, { type: 'text', text: 'Work in /src.', cache_control: { type: 'ephemeral', ttl: '1h' } }],
        thinking: { type: 'adaptive' },
        output_config: { effort: 'high' },
        context_management: { edits: [{ type: 'clear_thinking_20251015', keep: 'all' }] },
        metadata: { user_id: 'user_1f_account__session_2e' },
        tools: [
            {
                name: 'Bash', description: 'Runs a command', eager_input_streaming: true,
                input_schema: {
                    $schema: 'http://json-schema.org/draft-07/schema#', type: 'object', additionalProperties: false, required: ['command'],
                    properties: { command: { type: 'string' }, timeout: { type: 'number', exclusiveMinimum: 0, maximum: 600_000 }, env: { type: 'object', propertyNames: { type: 'string' }, additionalProperties: { type: 'string' } } },
                },
            },
            { name: 'mcp__some_server__read_resource', description: '', input_schema: { type: 'object', properties: { uri: { type: 'string', format: 'uri' } } }, cache_control: { type: 'ephemeral' } },
        ],
        messages: [{ role: 'user', content: [{ type: 'text', text: '<system-reminder>\nToday.\n</system-reminder>' }, { type: 'text', text: 'Fix it.', cache_control: { type: 'ephemeral' } }] }],
    },
};

for (const [name, up] of Object.entries(UPSTREAMS))
    scenario(`a coding client’s turn over ${name}: streamed, a tool, its result`, async (t) => {
        const { fake, provider } = await up.start(t);
        const gw = await startGateway(t, { config: { 'provider up': provider } });
        const ask = (body, path = '/v1/messages?beta=true') => request(gw, { path, headers: CODING.headers, body: { ...CODING.body, model: up.models.tools, ...body } });
        const events = (answer) => answer.text.split('\n\n').filter((e) => e.startsWith('event: ')).map((e) => JSON.parse(e.slice(e.indexOf('data: ') + 6)));
        fake.next(up.says({ text: 'Looking.', calls: [{ name: 'Bash', args: { command: 'ls "é"' } }] }));
        const first = await ask({ stream: true });
        assert.equal(first.status, 200, first.text);
        const seen = events(first);
        assert.deepEqual([seen[0].type, seen.at(-1).type], ['message_start', 'message_stop']);
        assert.equal(seen.find((e) => e.type === 'message_delta').delta.stop_reason, 'tool_use');
        const { id } = seen.find((e) => e.content_block?.type === 'tool_use').content_block;
        const input = seen.filter((e) => e.delta?.type === 'input_json_delta').map((e) => e.delta.partial_json).join('');
        assert.deepEqual(JSON.parse(input), { command: 'ls "é"' });
        assert.deepEqual(up.seen(fake.last).tools, ['Bash', 'mcp__some_server__read_resource']);
        assert.equal(up.seen(fake.last).system, 'You are a coding agent.\n\nWork in /src.');

        fake.next(up.says({ text: 'Done.' }));
        const second = await ask({
            stream: true,
            messages: [
                ...CODING.body.messages,
                { role: 'assistant', content: [{ type: 'text', text: 'Looking.' }, { type: 'tool_use', id, name: 'Bash', input: { command: 'ls "é"' } }] },
                { role: 'user', content: [{ type: 'tool_result', tool_use_id: id, content: [{ type: 'text', text: 'a.c', cache_control: { type: 'ephemeral' } }] }, { type: 'text', text: '<system-reminder>x</system-reminder>' }] },
            ].map((m, i, all) => (i === 0 ? { ...m, content: m.content.map(({ cache_control: _, ...b }) => b) } : all[i])),
        });
        assert.equal(second.status, 200, second.text);
        assert.equal(events(second).filter((e) => e.delta?.type === 'text_delta').map((e) => e.delta.text).join(''), 'Done.');
        assert.deepEqual(up.seen(fake.last).results, [['Bash', 'a.c']]);
        const { max_tokens: _, metadata, ...counted } = CODING.body;
        const count = await request(gw, { path: '/v1/messages/count_tokens?beta=true', headers: CODING.headers, body: { ...counted, model: up.models.tools } });
        assert.equal(count.status, 200, count.text);
        assert.ok(count.json.input_tokens > 0);
    });

scenario('limits of a key are told in the dialect', async (t) => {
    const gw = await startGateway(t, demo({}, { auth: { keys: CLIENT_KEY, admin_secret: 'sk-admin' } }));
    const made = await request(gw, { path: '/admin/api/keys', key: 'sk-admin', body: { name: 'limited', rpm: 5, tpm: 100000 } });
    const { key } = made.json;
    const answer = await request(gw, { path: '/v1/messages', key, body: HI });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.headers['anthropic-ratelimit-requests-limit'], '5');
    assert.equal(answer.headers['anthropic-ratelimit-requests-remaining'], '4');
    assert.match(answer.headers['anthropic-ratelimit-tokens-reset'], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
    assert.equal(answer.headers['x-ratelimit-limit-requests'], undefined);
});

scenario('over Gemini: calls and their signature, results with pictures, thinking, counting', async (t) => {
    const fake = await gemini.startFakeGemini(t);
    const gw = await startGateway(t, { config: { 'provider gemini': gemini.providerFor(fake) } });
    const client = sdkFor(gw);
    const model = 'gemini-3-pro-preview';
    const tools = [TOOL, { name: 'wait', input_schema: { type: 'object', properties: { s: { type: 'integer' } } } }];
    const ask = { model, max_tokens: 1000, system: 'Be brief.', top_k: 5, stop_sequences: ['END'], thinking: { type: 'enabled', budget_tokens: 9000 }, tools, messages: HI.messages };
    for (const stream of [false, true]) {
        fake.next(gemini.play.calls([{ name: 'look', args: { n: 7 } }, { name: 'wait', args: { s: 1 } }], { thoughts: ['I think.'], pieces: ['Looking.'] }));
        const first = stream ? await client.messages.stream(ask).finalMessage() : await client.messages.create(ask);
        assert.deepEqual(first.content.map((b) => b.type), ['thinking', 'text', 'tool_use', 'tool_use']);
        assert.equal(first.content[0].signature, '');
        assert.deepEqual(first.content.slice(2).map((b) => [b.name, b.input]), [['look', { n: 7 }], ['wait', { s: 1 }]]);
        assert.equal(first.stop_reason, 'tool_use');
        assert.equal(fake.last.json.generationConfig.topK, 5);
        const [look, wait] = first.content.slice(2);
        fake.next(gemini.play.ok({ text: 'Done.' }));
        const second = await client.messages.create({
            ...ask,
            messages: [...HI.messages, { role: 'assistant', content: first.content }, {
                role: 'user',
                content: [
                    { type: 'tool_result', tool_use_id: wait.id, content: 'waited', is_error: true },
                    { type: 'tool_result', tool_use_id: look.id, content: [{ type: 'text', text: 'a dot' }, { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'iVBORw0KGgo=' } }] },
                    { type: 'text', text: 'and?' },
                ],
            }],
        });
        assert.equal(second.content[0].text, 'Done.'); // the fake refuses calls without their signature, or out of order
    }
    const counted = await client.messages.countTokens({ model, messages: HI.messages });
    assert.ok(counted.input_tokens > 0);
    fake.next(gemini.play.blocked());
    const blocked = await client.messages.create({ ...HI, model });
    assert.deepEqual([blocked.stop_reason, blocked.content], ['refusal', []]);
});

scenario('over a web platform', async (t) => {
    const fake = await hix.startFakeHix(t);
    const gw = await startGateway(t, { config: { 'provider hix': { type: 'hix', base_url: fake.base, credentials: fake.sessions } } });
    const client = sdkFor(gw);
    fake.always(hix.say.answer({ pieces: ['Bl', 'ue é', '世', '🌍', '.'] }));
    const ask = { model: 'deepseek-v3', max_tokens: 100, system: 'Be brief.', messages: [{ role: 'user', content: [{ type: 'text', text: 'Name a colour.' }] }] };
    const { data, response } = await client.messages.create(ask).withResponse();
    assert.equal(data.content[0].text, 'Blue é世🌍.');
    assert.equal(response.headers.get('x-chatmux-dropped'), null);
    assert.equal((await client.messages.stream({ ...ask, temperature: 0.5 }).finalMessage()).content[0].text, 'Blue é世🌍.');
    assert.match(fake.of('/api/hix/chat').at(-1).json.question, /Be brief\.[\s\S]*Name a colour\./);
    await assert.rejects(client.messages.create({ ...ask, tools: [TOOL] }), (e) => e.status === 400 && e.type === 'invalid_request_error');
});
