// The three strict fakes behind one face, so that one table can be played over each of them.
//
//   start(t) -> {fake, provider}: the fake and its section of a configuration, with one account
//   models   {plain, tools, think}: names for what the cell needs
//   says({text, pieces, reasoning, calls: [{name, args}], finish: stop | length, slow, afterText}) -> a behaviour; USAGE is what it costs
//           afterText(rec): awaited behind each piece of the text of a stream
//   fails(kind), breaks(how) -> behaviours; how: error (in the stream), cut (TCP ends), end (a clean end without its mark)
//   seen(rec) -> what was asked, in words of our own: {system, turns: [[role, text]], images, results: [[name, text]], tools, choice, schema, stop, max, effort}
import * as anthropic from './fake_anthropic.mjs';
import * as gemini from './fake_gemini.mjs';
import * as openai from './fake_openai.mjs';

/** What every answer costs, whoever tells it: cached is a part of input, reasoning of output. */
export const USAGE = { input: 100, cached: 40, output: 30, reasoning: 20 };

const pieces7 = (text) => text.match(/[\s\S]{1,7}/gu) ?? [];
const textOf = (content) => (typeof content === 'string' ? content : (content ?? []).filter((p) => p.text !== undefined && !p.thought).map((p) => p.text).join('')).trim();
const defined = (o) => Object.fromEntries(Object.entries(o).filter(([, v]) => v !== undefined));

const overOpenai = {
    models: { plain: 'm1', tools: 'm1', think: 'think' },
    async start(t) {
        const fake = await openai.startFakeOpenai(t);
        return { fake, provider: openai.providerFor(fake, { credentials: fake.keys.slice(0, 1), models: ['m1', 'think'], 'x.reasoning_models': 'think', 'x.efforts': 'none low medium high', 'x.history_reasoning': 'drop' }) };
    },
    usage: {
        prompt_tokens: USAGE.input, completion_tokens: USAGE.output, total_tokens: USAGE.input + USAGE.output,
        prompt_tokens_details: { cached_tokens: USAGE.cached, audio_tokens: 0 }, completion_tokens_details: { reasoning_tokens: USAGE.reasoning, audio_tokens: 0 },
    },
    says({ text = '', pieces = pieces7(text), reasoning = '', calls = [], finish = calls.length > 0 ? 'tool_calls' : 'stop', slow = 0, afterText = () => {} }) {
        const spelled = calls.map(({ name, args }, i) => ({ id: `call_${i}_${Date.now() % 1e6}`, type: 'function', function: { name, arguments: Object.keys(args).length > 0 ? JSON.stringify(args) : '{}' } }));
        return async (rec) => {
            if (rec.json.stream !== true) {
                const body = openai.completion(rec.json.model, text || null, { usage: this.usage, finish });
                Object.assign(body.choices[0].message, { ...(reasoning && { reasoning_content: reasoning }), ...(calls.length > 0 && { tool_calls: spelled }) });
                return openai.play.status(200, JSON.stringify(body))(rec);
            }
            const w = new openai.ChunkWriter(rec.json.model, rec.json.stream_options?.include_usage === true);
            const texts = pieces.map((p) => w.text(p));
            const all = [w.role(), ...pieces7(reasoning).map((r) => w.delta({ reasoning_content: r })), ...texts];
            spelled.forEach(({ function: f, ...call }, index) => {
                all.push(w.delta({ tool_calls: [{ index, ...call, function: { name: f.name, arguments: '' } }] }));
                for (const piece of pieces7(f.arguments)) all.push(w.delta({ tool_calls: [{ index, function: { arguments: piece } }] }));
            });
            all.push(w.end(finish, this.usage));
            rec.res.writeHead(200, { 'content-type': 'text/event-stream' });
            for (const piece of all) {
                if (rec.isGone) return;
                rec.res.write(piece);
                if (texts.includes(piece)) await afterText(rec);
                if (slow > 0) await new Promise((done) => setTimeout(done, slow));
            }
            rec.res.end();
        };
    },
    fails: (kind) => ({
        bad_request: openai.play.error(400, 'temperature is nonsense', { param: 'temperature', code: 'invalid_value' }),
        context_length: openai.play.error(400, 'This model has a maximum context length of 8 tokens.', { param: 'messages', code: 'context_length_exceeded' }),
        credential: openai.play.badKey(),
        limited: openai.play.rateLimited(33),
        quota: openai.play.error(429, 'You exceeded your current quota', { type: 'insufficient_quota', code: 'insufficient_quota' }),
        overloaded: openai.play.error(503, 'The server is overloaded', { type: 'server_error' }),
        down: openai.play.error(500, 'oops', { type: 'server_error' }),
        html: openai.play.html(502),
        model: openai.play.error(404, 'The model does not exist', { code: 'model_not_found' }),
    })[kind],
    breaks: (how) => (how === 'error' ? async (rec) => {
        const w = new openai.ChunkWriter(rec.json.model, true);
        await openai.play.bytes(w.role() + w.text('half of it') + `data: ${openai.errorBody('Overloaded', { type: 'server_error', code: 'overloaded' })}\n\n`)(rec);
    } : openai.play.cutMidStream({ pieces: ['half of it'], how: how === 'cut' ? 'close' : 'end' })),
    seen({ json }) {
        const names = new Map(json.messages.flatMap((m) => m.tool_calls ?? []).map((c) => [c.id, c.function.name]));
        const isSystem = (m) => ['system', 'developer'].includes(m.role);
        return defined({
            system: json.messages.filter(isSystem).map((m) => textOf(m.content)).join('\n\n') || undefined,
            turns: json.messages.filter((m) => !isSystem(m) && m.role !== 'tool').map((m) => [m.role, textOf(m.content)]),
            images: json.messages.flatMap((m) => (Array.isArray(m.content) ? m.content : [])).filter((p) => p.type === 'image_url').map((p) => p.image_url.url.split(',')[1]),
            results: json.messages.filter((m) => m.role === 'tool').map((m) => [names.get(m.tool_call_id), textOf(m.content)]),
            tools: json.tools?.map((x) => x.function.name),
            choice: json.tool_choice,
            schema: json.response_format?.json_schema?.schema,
            stop: json.stop === undefined ? undefined : [json.stop].flat(),
            max: json.max_completion_tokens ?? json.max_tokens,
            effort: json.reasoning_effort,
        });
    },
};

const overAnthropic = {
    models: { plain: 'claude-opus-4-8', tools: 'claude-opus-4-8', think: 'claude-sonnet-4-5' },
    async start(t) {
        const fake = await anthropic.startFakeAnthropic(t);
        this.fake = fake;
        return { fake, provider: anthropic.providerFor(fake, { credentials: fake.keys.slice(0, 1), models: ['claude-opus-4-8', 'claude-sonnet-4-5'] }) };
    },
    usage: { input_tokens: USAGE.input - USAGE.cached, cache_creation_input_tokens: 0, cache_read_input_tokens: USAGE.cached, output_tokens: USAGE.output, output_tokens_details: { thinking_tokens: USAGE.reasoning } },
    says({ text = '', pieces, reasoning = '', calls = [], finish, slow = 0, afterText }) {
        return (rec) => {
            const content = [
                ...(reasoning ? [this.fake.thinking(reasoning)] : []),
                ...(text ? [{ type: 'text', text }] : []),
                ...calls.map(({ name, args }, i) => ({ type: 'tool_use', id: `toolu_${i}_${Date.now() % 1e6}`, name, input: args })),
            ];
            return anthropic.play.answer({ content, pieces, usage: this.usage, stop_reason: finish === 'length' ? 'max_tokens' : calls.length > 0 ? 'tool_use' : 'end_turn' }, { gapMs: slow, afterText })(rec);
        };
    },
    fails: (kind) => ({
        bad_request: anthropic.play.error(400, 'invalid_request_error', 'temperature: nonsense'),
        context_length: anthropic.play.error(400, 'invalid_request_error', 'prompt is too long: 9 tokens > 8 maximum'),
        credential: anthropic.play.error(401, 'authentication_error', 'invalid x-api-key'),
        limited: anthropic.play.error(429, 'rate_limit_error', 'slow down', { 'retry-after': '33' }),
        quota: anthropic.play.error(402, 'billing_error', 'pay'),
        overloaded: anthropic.play.error(529, 'overloaded_error', 'Overloaded'),
        down: anthropic.play.error(500, 'api_error', 'oops'),
        html: openai.play.html(502),
        model: anthropic.play.error(404, 'not_found_error', 'model: gone'),
    })[kind],
    breaks: (how) => anthropic.play.broken(how),
    seen({ json }) {
        const blocks = json.messages.flatMap((m) => (typeof m.content === 'string' ? [] : m.content));
        const names = new Map(blocks.filter((b) => b.type === 'tool_use').map((b) => [b.id, b.name]));
        const onlyResults = (m) => Array.isArray(m.content) && m.content.every((b) => b.type === 'tool_result');
        return defined({
            system: json.system === undefined ? undefined : typeof json.system === 'string' ? json.system : json.system.map((b) => b.text).join('\n\n'),
            turns: json.messages.filter((m) => !onlyResults(m)).map((m) => [m.role, textOf(m.content)]),
            images: blocks.filter((b) => b.type === 'image').map((b) => b.source.data),
            results: blocks.filter((b) => b.type === 'tool_result').map((b) => [names.get(b.tool_use_id), textOf(b.content)]),
            tools: json.tools?.map((x) => x.name),
            choice: json.tool_choice && { any: 'required' }[json.tool_choice.type] || json.tool_choice?.type,
            schema: json.output_config?.format?.schema,
            stop: json.stop_sequences,
            max: json.max_tokens,
            effort: json.thinking?.budget_tokens === undefined ? undefined : json.thinking.budget_tokens <= 2048 ? 'low' : 'more',
        });
    },
};

const overGemini = {
    models: { plain: 'gemini-2.5-flash', tools: 'gemini-3.5-flash', think: 'gemini-2.5-flash' },
    async start(t) {
        const fake = await gemini.startFakeGemini(t);
        return { fake, provider: gemini.providerFor(fake, { credentials: fake.keys.slice(0, 1) }) };
    },
    usage: { promptTokenCount: USAGE.input, cachedContentTokenCount: USAGE.cached, candidatesTokenCount: USAGE.output - USAGE.reasoning, thoughtsTokenCount: USAGE.reasoning, totalTokenCount: USAGE.input + USAGE.output },
    says({ text = '', pieces, reasoning = '', calls = [], finish, slow = 0, afterText }) {
        const options = { thoughts: pieces7(reasoning), usage: this.usage, finish: finish === 'length' ? 'MAX_TOKENS' : 'STOP', gapMs: slow, afterText, ...(pieces ? { pieces } : text ? { pieces: pieces7(text) } : {}) };
        return calls.length > 0 ? gemini.play.calls(calls, { ...options, pieces: options.pieces ?? null }) : gemini.play.ok({ ...options, text });
    },
    fails: (kind) => ({
        bad_request: gemini.play.error(400, 'Invalid value at generation_config.temperature'),
        context_length: gemini.play.tooLong(),
        credential: gemini.play.badKey(),
        limited: gemini.play.rateLimited('33s'),
        quota: gemini.play.dayQuota(),
        overloaded: gemini.play.overloaded(),
        down: gemini.play.error(500, 'Internal error encountered.'),
        html: gemini.play.html(502),
        model: gemini.play.error(404, 'models/x is not found for API version v1beta'),
    })[kind],
    breaks: (how) => (how === 'error' ? gemini.play.errorMidStream({ pieces: ['half of it'] }) : gemini.play.cut({ pieces: ['half of it'], how: how === 'cut' ? 'close' : 'end' })),
    seen({ json }) {
        const parts = json.contents.flatMap((c) => c.parts);
        const config = json.generationConfig ?? {};
        const mode = json.toolConfig?.functionCallingConfig.mode;
        return defined({
            system: json.systemInstruction && textOf(json.systemInstruction.parts),
            turns: json.contents.filter((c) => !c.parts.every((p) => p.functionResponse)).map((c) => [c.role === 'model' ? 'assistant' : 'user', textOf(c.parts)]),
            images: parts.filter((p) => p.inlineData).map((p) => p.inlineData.data),
            results: parts.filter((p) => p.functionResponse).map(({ functionResponse: f }) => [f.name, f.response.output ?? f.response.content ?? f.response.result]),
            tools: json.tools?.flatMap((x) => x.functionDeclarations.map((f) => f.name)),
            choice: mode && { ANY: 'required', AUTO: 'auto', NONE: 'none' }[mode],
            schema: config.responseJsonSchema ?? config.responseSchema,
            stop: config.stopSequences,
            max: config.maxOutputTokens,
            effort: config.thinkingConfig?.thinkingBudget === undefined ? undefined : config.thinkingConfig.thinkingBudget <= 2048 ? 'low' : 'more',
        });
    },
};

export const UPSTREAMS = { openai: overOpenai, anthropic: overAnthropic, gemini: overGemini };
