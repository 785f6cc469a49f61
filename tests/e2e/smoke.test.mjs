// The first minute of a new user: the built-in demo through the official OpenAI SDK.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { spawn } from 'node:child_process';
import OpenAI from 'openai';
import { atEnd, binary, chat, cleanEnv, CLIENT_KEY, freePort, makeDir, probe, request, scenario, startGateway, until } from '../lib/gateway.mjs';
import { connect, rawChat, readChatStream } from '../lib/raw.mjs';

const DEMO = { config: { 'provider demo': { type: 'demo' } } };

const client = (gw, more = {}) => new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0, ...more });
const say = (text) => [{ role: 'user', content: text }];

const WEATHER = {
    type: 'function',
    function: { name: 'get_weather', description: 'Weather of a city', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
};

scenario('without any file the demo answers on a port of one’s choice', async (t) => {
    const dir = makeDir();
    const port = await freePort();
    mkdirSync(`${dir}/state`);
    const child = spawn(binary, ['--listen', `127.0.0.1:${port}`], { cwd: dir, env: cleanEnv(dir), stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
    const ended = new Promise((done) => child.once('close', done));
    atEnd(t, () => child.kill('SIGKILL'));
    await until(async () => (await probe({ port })) === 200, 'the demo to listen').catch((error) => {
        throw new Error(`${error.message}\n${output}`);
    });
    assert.match(output, /demo/, 'it says what it serves');
    const sdk = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'anything', maxRetries: 0 });
    const answer = await sdk.chat.completions.create({ model: 'demo', messages: say('no key, no file') });
    assert.equal(answer.choices[0].message.content, 'no key, no file');
    child.kill('SIGTERM');
    assert.equal(await ended, 0);
});

scenario('a plain answer', async (t) => {
    const gw = await startGateway(t, DEMO);
    const { data, response } = await client(gw).chat.completions.create({ model: 'demo', messages: say('Grüße, 世界 🌍') }).withResponse();
    assert.match(data.id, /^chatcmpl-/);
    assert.equal(data.object, 'chat.completion');
    assert.equal(data.model, 'demo');
    assert.ok(Math.abs(data.created - Date.now() / 1000) < 60);
    assert.equal(data.choices.length, 1);
    const [choice] = data.choices;
    assert.equal(choice.index, 0);
    assert.equal(choice.finish_reason, 'stop');
    assert.equal(choice.message.role, 'assistant');
    assert.equal(choice.message.content, 'Grüße, 世界 🌍');
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.ok(data.usage.completion_tokens > 0);
    assert.ok(response.headers.get('x-request-id'));
    assert.equal(response.headers.get('x-chatmux-provider'), 'demo');
    assert.equal(response.headers.get('x-chatmux-model'), 'demo');
    assert.equal(response.headers.get('x-chatmux-attempts'), '1');
    assert.match(response.headers.get('content-type'), /^application\/json/);
});

scenario('content parts, several turns and an empty message', async (t) => {
    const gw = await startGateway(t, DEMO);
    const sdk = client(gw);
    const ask = async (messages) => (await sdk.chat.completions.create({ model: 'demo', messages })).choices[0].message.content;
    assert.equal(await ask([{ role: 'system', content: 'be kind' }, ...say('first'), { role: 'assistant', content: 'first' }, ...say('second')]), 'second');
    assert.equal(await ask([{ role: 'user', content: [{ type: 'text', text: 'a part' }] }]), 'a part');
    assert.equal(await ask(say('')), 'Hello from chatmux.');
});

scenario('a stream: role first, text, finish, [DONE]; usage only when asked', async (t) => {
    const gw = await startGateway(t, DEMO);
    for (const include_usage of [undefined, true]) {
        const raw = await connect(t, gw);
        raw.send(rawChat(chat('demo', 'one two three four', { stream: true, ...(include_usage && { stream_options: { include_usage } }) })));
        const head = await raw.head();
        assert.equal(head.status, 200);
        assert.match(head.headers['content-type'], /^text\/event-stream/);
        assert.equal(head.headers['cache-control'], 'no-cache');
        assert.equal(head.headers['x-accel-buffering'], 'no');
        assert.ok(head.headers['x-request-id']);
        const { bytes, clean } = await raw.drainStream();
        assert.ok(clean);
        const { chunks, done, text } = readChatStream(bytes);
        assert.ok(done);
        assert.equal(text, 'one two three four');
        assert.equal(chunks[0].choices[0].delta.role, 'assistant');
        for (const chunk of chunks) {
            assert.equal(chunk.object, 'chat.completion.chunk');
            assert.deepEqual([chunk.id, chunk.model, chunk.created], [chunks[0].id, 'demo', chunks[0].created]);
        }
        const withChoices = chunks.filter((chunk) => chunk.choices.length > 0);
        assert.equal(withChoices.at(-1).choices[0].finish_reason, 'stop');
        assert.ok(withChoices.slice(0, -1).every((chunk) => chunk.choices[0].finish_reason === null));
        assert.ok(withChoices.slice(1).every((chunk) => !('role' in chunk.choices[0].delta) || chunk.choices[0].delta.role === 'assistant'));
        const usages = chunks.filter((chunk) => chunk.usage);
        if (include_usage) {
            assert.equal(usages.length, 1);
            assert.equal(usages[0], chunks.at(-1));
            assert.deepEqual(usages[0].choices, []);
            assert.ok(chunks.every((chunk) => 'usage' in chunk), 'the other chunks say usage: null');
        } else {
            assert.equal(usages.length, 0);
            assert.equal(withChoices.length, chunks.length, 'a chunk without choices came unasked');
        }
    }
});

scenario('the SDK’s stream helper', async (t) => {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo', 'x.chunks': 5, 'x.chunk_ms': 5 } } });
    const stream = client(gw).chat.completions.stream({ model: 'demo', messages: say('Lorem ipsum dolor sit amet, 世界 🌍.') });
    let deltas = 0;
    stream.on('content', () => deltas++);
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, 'Lorem ipsum dolor sit amet, 世界 🌍.');
    assert.equal(final.choices[0].finish_reason, 'stop');
    assert.ok(deltas >= 2, `${deltas} deltas`);
});

scenario('x.delay and x.chunk_ms set the pace', async (t) => {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo', 'x.delay': '300ms', 'x.chunks': 4, 'x.chunk_ms': 100 } } });
    const begin = performance.now();
    const times = [];
    for await (const chunk of await client(gw).chat.completions.create({ model: 'demo', messages: say('one two three four five six seven eight'), stream: true }))
        if (chunk.choices[0].delta.content) times.push(performance.now() - begin);
    assert.equal(times.length, 4);
    assert.ok(times[0] >= 290, `the first piece came after ${times[0]} ms`);
    for (let i = 1; i < times.length; i++) assert.ok(times[i] - times[i - 1] >= 50, `piece ${i} came ${times[i] - times[i - 1]} ms after the one before`);
});

scenario('a tool call, plain and streamed', async (t) => {
    const gw = await startGateway(t, DEMO);
    const sdk = client(gw);
    const ask = { model: 'demo-tool', messages: say('weather in Rome?'), tools: [WEATHER] };
    const plain = (await sdk.chat.completions.create(ask)).choices[0];
    assert.equal(plain.finish_reason, 'tool_calls');
    assert.equal(plain.message.tool_calls.length, 1);
    const [call] = plain.message.tool_calls;
    assert.equal(call.type, 'function');
    assert.equal(call.function.name, 'get_weather');
    assert.equal(typeof JSON.parse(call.function.arguments), 'object');
    assert.ok(call.id.length > 0 && call.id.length <= 40);

    const starts = [];
    let args = '';
    let finish = null;
    for await (const chunk of await sdk.chat.completions.create({ ...ask, stream: true })) {
        const [choice] = chunk.choices;
        finish ??= choice.finish_reason;
        for (const part of choice.delta.tool_calls ?? []) {
            assert.equal(part.index, 0);
            if (part.id) starts.push(part);
            else assert.deepEqual(Object.keys(part).sort(), ['function', 'index'], 'id, type and name come once');
            args += part.function.arguments ?? '';
        }
    }
    assert.equal(starts.length, 1);
    assert.equal(starts[0].type, 'function');
    assert.equal(starts[0].function.name, 'get_weather');
    assert.equal(typeof JSON.parse(args), 'object');
    assert.equal(finish, 'tool_calls');

    const back = await sdk.chat.completions.create({
        model: 'demo',
        tools: [WEATHER],
        messages: [...ask.messages, plain.message, { role: 'tool', tool_call_id: call.id, content: 'sunny' }, ...say('thanks')],
    });
    assert.equal(back.choices[0].message.content, 'thanks', 'the SDK’s message object can be sent back as it came');
});

scenario('reasoning, plain and streamed', async (t) => {
    const gw = await startGateway(t, DEMO);
    const sdk = client(gw);
    const ask = { model: 'demo-reasoning', messages: say('why?') };
    const plain = (await sdk.chat.completions.create(ask)).choices[0].message;
    assert.equal(plain.content, 'why?');
    assert.ok(plain.reasoning_content.length > 0);
    let reasoning = '';
    let text = '';
    for await (const chunk of await sdk.chat.completions.create({ ...ask, stream: true })) {
        const { delta } = chunk.choices[0];
        if (delta.reasoning_content) {
            assert.equal(text, '', 'reasoning comes before the text');
            reasoning += delta.reasoning_content;
        }
        text += delta.content ?? '';
    }
    assert.ok(reasoning.length > 0);
    assert.equal(text, 'why?');
});

scenario('reasoning in the other forms of stream.reasoning', async (t) => {
    for (const [form, pattern] of [
        ['think', /^<think>[^]+<\/think>\s*why\?$/],
        ['hide', /^why\?$/],
        ['plain', /^(?!<think>)[^]+why\?$/],
    ]) {
        const gw = await startGateway(t, { name: form, config: { stream: { reasoning: form }, 'provider demo': { type: 'demo' } } });
        const { message } = (await request(gw, { body: chat('demo-reasoning', 'why?') })).json.choices[0];
        assert.match(message.content, pattern, form);
        assert.ok(!message.reasoning_content, form);
        let text = '';
        for await (const chunk of await client(gw).chat.completions.create({ model: 'demo-reasoning', messages: say('why?'), stream: true })) {
            assert.ok(!chunk.choices[0].delta.reasoning_content, form);
            text += chunk.choices[0].delta.content ?? '';
        }
        assert.match(text, pattern, `${form}, streamed`);
    }
});

scenario('an image', async (t) => {
    const gw = await startGateway(t, DEMO);
    const answer = await client(gw).chat.completions.create({ model: 'demo-image', messages: say('a cat') });
    const m = /!\[[^\]]*\]\(data:image\/png;base64,([A-Za-z0-9+/]+=*)\)/.exec(answer.choices[0].message.content);
    assert.ok(m, answer.choices[0].message.content);
    assert.equal(Buffer.from(m[1], 'base64').subarray(0, 8).toString('latin1'), '\x89PNG\r\n\x1a\n');
});

scenario('errors on request', async (t) => {
    const gw = await startGateway(t, { config: { retry: { retries: 0, max_wait: '0' }, 'provider demo': { type: 'demo' } } });
    const sdk = client(gw);
    for (const [text, status, type] of [
        ['rate_limited', 429, OpenAI.RateLimitError],
        ['overloaded', 503, OpenAI.InternalServerError],
        ['upstream_down', 502, OpenAI.InternalServerError],
        ['', 502, OpenAI.InternalServerError],
        ['bad_request', 400, OpenAI.BadRequestError],
        ['context_length', 400, OpenAI.BadRequestError],
    ]) {
        for (const stream of [false, true])
            await assert.rejects(sdk.chat.completions.create({ model: 'demo-error', messages: say(text), stream }), (error) => {
                assert.ok(error instanceof type, `${text}: ${error.constructor.name} ${error.message}`);
                assert.equal(error.status, status, text);
                if (text === 'context_length') assert.equal(error.code, 'context_length_exceeded');
                assert.ok(error.requestID, 'the SDK finds the request id');
                return true;
            });
    }
});

scenario('the model list, and one model', async (t) => {
    const gw = await startGateway(t, DEMO);
    const sdk = client(gw);
    const ids = [];
    for await (const model of sdk.models.list()) {
        assert.equal(model.object, 'model');
        assert.equal(typeof model.created, 'number');
        assert.equal(typeof model.owned_by, 'string');
        ids.push(model.id);
    }
    for (const id of ['demo', 'demo-reasoning', 'demo-tool', 'demo-image', 'demo-error']) assert.ok(ids.includes(id), `${id} in ${ids}`);
    assert.equal(new Set(ids).size, ids.length);
    assert.equal((await sdk.models.retrieve('demo')).id, 'demo');
    await assert.rejects(sdk.models.retrieve('nonesuch'), (error) => error.status === 404 && error.code === 'model_not_found');

    const list = (await request(gw, { path: '/v1/models' })).json;
    assert.deepEqual(Object.keys(list).sort(), ['data', 'first_id', 'has_more', 'last_id', 'object'].sort());
    assert.equal(list.has_more, false);
    assert.equal(list.first_id, list.data[0].id);
    assert.equal(list.last_id, list.data.at(-1).id);
    for (const entry of list.data) {
        assert.equal(entry.type, 'model');
        assert.equal(typeof entry.display_name, 'string');
        assert.ok(!Number.isNaN(Date.parse(entry.created_at)));
    }
});

scenario('a name with the provider in front, and abort by the SDK', async (t) => {
    const gw = await startGateway(t, { config: { 'provider demo': { type: 'demo', 'x.delay': '20s' }, 'provider quick': { type: 'demo' } } });
    const sdk = client(gw);
    const { response } = await sdk.chat.completions.create({ model: 'quick/demo', messages: say('pinned') }).withResponse();
    assert.equal(response.headers.get('x-chatmux-provider'), 'quick');
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 100);
    await assert.rejects(sdk.chat.completions.create({ model: 'demo/demo', messages: say('slow') }, { signal: abort.signal }), OpenAI.APIUserAbortError);
    await until(() => gw.accessLines().length >= 2, 'the aborted exchange to be settled');
});

scenario('1 MB in, 1 MB out', async (t) => {
    const gw = await startGateway(t, DEMO);
    const text = '0123456789abcdéf'.repeat(65_536).slice(0, 1_000_000);
    const answer = await client(gw).chat.completions.create({ model: 'demo', messages: say(text) });
    assert.equal(answer.choices[0].message.content, text);
    let streamed = '';
    for await (const chunk of await client(gw).chat.completions.create({ model: 'demo', messages: say(text), stream: true })) streamed += chunk.choices[0].delta.content ?? '';
    assert.equal(streamed, text);
});
