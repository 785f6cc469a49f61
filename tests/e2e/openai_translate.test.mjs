// Clients that speak another dialect, over an OpenAI-compatible server that refuses every wrong member.
import assert from 'node:assert/strict';
import Anthropic from '@anthropic-ai/sdk';
import { GoogleGenAI } from '@google/genai';
import OpenAI from 'openai';
import { CLIENT_KEY, request, scenario, startGateway } from '../lib/gateway.mjs';
import { startFakeApi, vectorOf } from '../lib/fake_openai_api.mjs';
import { ChunkWriter, completion, play, providerFor, startFakeOpenai } from '../lib/fake_openai.mjs';

async function start(t, { fakeOptions, provider, ...more } = {}) {
    const fake = await startFakeOpenai(t, fakeOptions);
    const gw = await startGateway(t, { ...more, config: { ...more.config, 'provider up': providerFor(fake, { credentials: fake.keys.slice(0, 1), models: ['m1', 'claude=m2'], ...provider }) } });
    return {
        fake,
        gw,
        claude: new Anthropic({ baseURL: gw.base.replace(/\/v1$/, ''), apiKey: CLIENT_KEY, maxRetries: 0 }),
        sdk: new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 }),
    };
}

const say = (content) => [{ role: 'user', content }];

scenario('Anthropic’s SDK: a whole answer', async (t) => {
    const { fake, claude } = await start(t);
    fake.always(play.ok({ text: 'Grüße 世界' }));
    const message = await claude.messages.create({ model: 'claude', max_tokens: 50, system: 'Be brief.', messages: say('Hi'), temperature: 0.5 });
    assert.deepEqual(message.content.map((b) => [b.type, b.text]), [['text', 'Grüße 世界']]);
    assert.equal(message.stop_reason, 'end_turn');
    assert.equal(message.usage.input_tokens, 11);
    assert.equal(message.usage.output_tokens, 7);
    assert.deepEqual(fake.last.json, {
        model: 'm2',
        messages: [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'Hi' }],
        max_tokens: 50,
        temperature: 0.5,
    });
});

scenario('Anthropic’s SDK: a stream with thinking, text and two calls that alternate', async (t) => {
    const { fake, claude } = await start(t);
    fake.always((rec) => {
        const w = new ChunkWriter(rec.json.model, true);
        const call = (index, more) => w.delta({ tool_calls: [{ index, ...more }] });
        rec.res.writeHead(200, { 'content-type': 'text/event-stream' });
        rec.res.end(
            w.role() + w.delta({ reasoning_content: 'I think.' }) + w.text('Look') + w.text('ing.') +
            call(0, { id: 'call_a', type: 'function', function: { name: 'look', arguments: '' } }) + call(1, { id: 'call_b', type: 'function', function: { name: 'wait', arguments: '{"s"' } }) +
            call(0, { function: { arguments: '{"at":"Grü' } }) + call(1, { function: { arguments: ':1}' } }) + call(0, { function: { arguments: 'ße"}' } }) + w.end('tool_calls'),
        );
    });
    const tools = ['look', 'wait'].map((name) => ({ name, input_schema: { type: 'object', properties: { at: { type: 'string' } } } }));
    const stream = claude.messages.stream({ model: 'claude', max_tokens: 50, messages: say('Hi'), tools, tool_choice: { type: 'any' } });
    const seen = [];
    stream.on('text', (text) => seen.push(text));
    const message = await stream.finalMessage();
    assert.deepEqual(seen, ['Look', 'ing.']);
    assert.equal(message.content.find((b) => b.type === 'thinking').thinking, 'I think.');
    const uses = message.content.filter((b) => b.type === 'tool_use');
    assert.deepEqual(uses.map((b) => [b.id, b.name, b.input]), [['call_a', 'look', { at: 'Grüße' }], ['call_b', 'wait', { s: 1 }]]);
    assert.equal(message.stop_reason, 'tool_use');
    assert.equal(message.usage.output_tokens, 7);
    assert.equal(fake.last.json.tool_choice, 'required');
    assert.equal(fake.last.json.stream_options.include_usage, true);

    fake.always(play.ok({ text: 'done' }));
    const next = await claude.messages.create({
        model: 'claude',
        max_tokens: 50,
        tools,
        messages: [
            ...say('Hi'),
            { role: 'assistant', content: message.content },
            { role: 'user', content: [...uses.map((u) => ({ type: 'tool_result', tool_use_id: u.id, content: [{ type: 'text', text: u.name }, { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'iVBORw0=' } }] })), { type: 'text', text: 'go on' }] },
        ],
    });
    assert.equal(next.content[0].text, 'done');
    assert.deepEqual(fake.last.json.messages.map((m) => m.role), ['user', 'assistant', 'tool', 'tool', 'user']);
    assert.deepEqual(fake.last.json.messages.at(-1).content.map((p) => p.type), ['image_url', 'image_url', 'text']);
});

scenario('refusals, limits and cuts in Anthropic’s words', async (t) => {
    const { fake, claude } = await start(t, { config: { retry: { retries: 0, max_wait: 0 } } });
    fake.next(play.error(400, 'too long', { code: 'context_length_exceeded', param: 'messages' }));
    const ask = () => claude.messages.create({ model: 'claude', max_tokens: 5, messages: say('x') });
    await assert.rejects(ask(), (e) => e.status === 400 && e.error.error.type === 'invalid_request_error');
    fake.next(play.cutMidStream({ pieces: ['one '], how: 'end' }));
    await assert.rejects(claude.messages.stream({ model: 'claude', max_tokens: 5, messages: say('x') }).finalMessage());
    fake.next(play.rateLimited(30));
    await assert.rejects(ask(), (e) => e.status === 429 && e.headers.get('retry-after') === '30');
});

scenario('another credential takes over before anything was said', async (t) => {
    const { fake, claude } = await start(t, { provider: { credentials: ['sk-up-1', 'sk-up-2'] } });
    fake.key('sk-up-1', play.errorEvent());
    for (let i = 0; i < 2; i++) {
        const message = await claude.messages.stream({ model: 'claude', max_tokens: 5, messages: say('x') }).finalMessage();
        assert.equal(message.content[0].text, 'Hello from upstream.');
    }
});

scenario('completions over a server that only chats, and over a provider of another kind', async (t) => {
    const { fake, gw, sdk } = await start(t, { provider: { 'x.tasks': 'chat' }, config: { 'provider demo': { type: 'demo' } } });
    fake.always(play.ok({ text: ' upon a time', finish: 'length' }));
    const whole = await sdk.completions.create({ model: 'm1', prompt: 'Once', max_tokens: 5, echo: true, n: 1 });
    assert.equal(whole.object, 'text_completion');
    assert.match(whole.id, /^cmpl-/);
    assert.equal(whole.choices[0].text, 'Once upon a time');
    assert.equal(whole.choices[0].finish_reason, 'length');
    assert.equal(whole.usage.total_tokens, 18);
    assert.deepEqual(fake.last.json, { model: 'm1', messages: say('Once'), max_tokens: 5 });
    let text = '';
    for await (const chunk of await sdk.completions.create({ model: 'm1', prompt: 'Once', stream: true })) text += chunk.choices[0]?.text ?? '';
    assert.equal(text, ' upon a time');
    const demo = await sdk.completions.create({ model: 'demo', prompt: 'say this back' });
    assert.equal(demo.choices[0].text, 'say this back');
    const several = await request(gw, { path: '/v1/completions', body: { model: 'demo', prompt: ['a', 'b'] } });
    assert.equal(several.status, 400);
    assert.equal(several.error.param, 'prompt');
    const vectors = await request(gw, { path: '/v1/embeddings', body: { model: 'demo', input: 'x' } });
    assert.equal(vectors.status, 404);
    assert.match(vectors.error.message, /demo.*no embeddings/);
});

scenario('Google’s SDK: vectors of an OpenAI-compatible server, with the dimensions asked for', async (t) => {
    const api = await startFakeApi(t);
    const gw = await startGateway(t, { config: { 'provider up': { type: 'openai', base_url: api.base, credentials: 'sk-up-1', models: 'vec=theirs' } } });
    const ai = new GoogleGenAI({ apiKey: CLIENT_KEY, httpOptions: { baseUrl: gw.url } });
    const { embeddings } = await ai.models.embedContent({ model: 'vec', contents: ['a', 'Grüße'], config: { outputDimensionality: 3 } });
    assert.deepEqual(embeddings.map((e) => e.values.map(Math.fround)), ['a', 'Grüße'].map(vectorOf));
    assert.deepEqual(api.last.json, { model: 'theirs', input: ['a', 'Grüße'], dimensions: 3 });
});

const LIMITS = {
    'x-ratelimit-limit-requests': '60',
    'x-ratelimit-remaining-requests': '59',
    'x-ratelimit-reset-requests': '20ms',
    'x-ratelimit-limit-tokens': '150000',
    'x-ratelimit-remaining-tokens': '149984',
    'x-ratelimit-reset-tokens': '1m30s',
};
const told = (headers) => Object.fromEntries(Object.entries(headers).filter(([name]) => /ratelimit/.test(name)));

scenario('rate limits of the upstream are told in Anthropic’s headers', async (t) => {
    const { fake, gw } = await start(t);
    const ask = { model: 'claude', max_tokens: 50, messages: say('Hi') };
    for (const stream of [false, true]) {
        fake.next(play.ok({ headers: LIMITS }));
        const from = Date.now();
        const { status, headers, text } = await request(gw, { path: '/v1/messages', body: { ...ask, stream } });
        assert.equal(status, 200, text);
        const { 'anthropic-ratelimit-requests-reset': soon, 'anthropic-ratelimit-tokens-reset': later, ...counts } = told(headers);
        assert.deepEqual(counts, {
            'anthropic-ratelimit-requests-limit': '60',
            'anthropic-ratelimit-requests-remaining': '59',
            'anthropic-ratelimit-tokens-limit': '150000',
            'anthropic-ratelimit-tokens-remaining': '149984',
        });
        assert.ok(Date.parse(soon) >= from && Date.parse(soon) <= Date.now() + 1020, soon);
        assert.ok(Date.parse(later) >= from + 90_000 && Date.parse(later) <= Date.now() + 91_000, later);
        assert.match(later, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
    }
    fake.next(play.ok());
    assert.deepEqual(told((await request(gw, { path: '/v1/messages', body: ask })).headers), {}, 'those of an earlier answer');
});

scenario('… and with the answer that refuses, but not to a key with limits of its own', async (t) => {
    const { fake, gw } = await start(t, { config: { auth: { keys: CLIENT_KEY, admin_secret: 'sk-admin' }, retry: { retries: 0, max_wait: 0 } } });
    const made = await request(gw, { path: '/admin/api/keys', key: 'sk-admin', body: { name: 'limited', rpm: 5 } });
    const ask = { path: '/v1/messages', body: { model: 'claude', max_tokens: 50, messages: say('Hi') } };
    fake.next(play.ok({ headers: LIMITS }));
    const { headers } = await request(gw, { ...ask, key: made.json.key });
    assert.deepEqual([headers['anthropic-ratelimit-requests-limit'], headers['anthropic-ratelimit-tokens-limit']], ['5', undefined]);
    fake.next(play.status(400, JSON.stringify({ error: { message: 'no', type: 'invalid_request_error', param: null, code: null } }), LIMITS));
    const refused = await request(gw, ask);
    assert.deepEqual([refused.status, refused.headers['anthropic-ratelimit-tokens-remaining']], [400, '149984']);
});

scenario('Gemini’s SDK: probabilities of tokens, whole and streamed', async (t) => {
    const { fake, gw } = await start(t);
    const ai = new GoogleGenAI({ apiKey: CLIENT_KEY, httpOptions: { baseUrl: gw.url } });
    const entry = (token, logprob, tops = []) => ({ token, logprob, bytes: null, top_logprobs: tops.map(([token, logprob]) => ({ token, logprob, bytes: null })) });
    const entries = [entry('Grüße', -0.5, [['Grüße', -0.5], ['Hi', -2]]), entry('!', -0.25, [['!', -0.25], ['?', -3]])];
    const ask = { model: 'm1', contents: 'Hi', config: { responseLogprobs: true, logprobs: 2 } };
    const chosen = [{ token: 'Grüße', logProbability: -0.5 }, { token: '!', logProbability: -0.25 }];
    const tops = [[chosen[0], { token: 'Hi', logProbability: -2 }], [chosen[1], { token: '?', logProbability: -3 }]].map((candidates) => ({ candidates }));

    fake.next((rec) => {
        const body = completion(rec.json.model, 'Grüße!');
        body.choices[0].logprobs = { content: entries, refusal: null };
        rec.res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
    const { candidates: [whole] } = await ai.models.generateContent(ask);
    assert.deepEqual([fake.last.json.logprobs, fake.last.json.top_logprobs], [true, 2]);
    assert.deepEqual(whole.logprobsResult, { topCandidates: tops, chosenCandidates: chosen });
    assert.equal(whole.avgLogprobs, -0.375);

    fake.next((rec) => {
        const w = new ChunkWriter(rec.json.model, true);
        const piece = (content, ...content_) => w.event([{ index: 0, delta: { content }, logprobs: { content: content_, refusal: null }, finish_reason: null }]);
        rec.res.writeHead(200, { 'content-type': 'text/event-stream' });
        rec.res.end(w.role() + piece('Grüße', entries[0]) + piece('!', entries[1]) + w.end());
    });
    const seen = [];
    for await (const chunk of await ai.models.generateContentStream(ask)) seen.push(chunk.candidates[0]);
    assert.deepEqual(seen.flatMap((c) => c.logprobsResult?.chosenCandidates ?? []), chosen);
    assert.deepEqual(seen.flatMap((c) => c.logprobsResult?.topCandidates ?? []), tops);
    assert.equal(seen.at(-1).avgLogprobs, -0.375);

    fake.next(play.ok());
    const { candidates: [plain] } = await ai.models.generateContent({ model: 'm1', contents: 'Hi' });
    assert.deepEqual([plain.logprobsResult, plain.avgLogprobs], [undefined, undefined]);
});
