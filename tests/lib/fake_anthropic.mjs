// A strict Messages API, written from docs/protocols/anthropic.md, sections 1 to 5. It refuses what the real one refuses
// and what must not leak out of a gateway, signs its thinking and checks it when it comes back, and remembers what it saw.
import { createHmac } from 'node:crypto';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { Kept, keptRoute } from './fake_anthropic_kept.mjs';
import { CLIENT_KEY, atEnd } from './gateway.mjs';

const isObject = (v) => typeof v === 'object' && v !== null && !Array.isArray(v);

class Refusal extends Error {
    constructor(status, message, type = 'invalid_request_error', headers = {}) {
        super(message);
        Object.assign(this, { status, type, headers });
    }
}
const bad = (path, why) => new Refusal(400, `${path}: ${why}`);

// ---- models and what they take (section 2) --------------------------------------------------------------------------

const EFFORTS = ['low', 'medium', 'high', 'xhigh', 'max'];
const MODELS = {
    'claude-3-opus-20240229': { thinking: [], effort: [], max: 4096, prefill: true, sampling: 'any' },
    'claude-sonnet-4-5': { thinking: ['enabled', 'disabled'], effort: [], max: 64_000, prefill: true, sampling: 'one', schema: true },
    'claude-sonnet-4-6': { thinking: ['enabled', 'adaptive', 'disabled'], effort: ['low', 'medium', 'high', 'max'], max: 128_000, sampling: 'one', schema: true },
    'claude-opus-4-8': { thinking: ['adaptive', 'disabled'], effort: EFFORTS, max: 128_000, sampling: 'none', schema: true, systemTurns: true },
    'claude-opus-5': { thinking: ['adaptive', 'disabled'], effort: EFFORTS, max: 128_000, sampling: 'none', schema: true, systemTurns: true },
    'claude-fable-5': { thinking: ['adaptive'], effort: EFFORTS, max: 128_000, sampling: 'none', schema: true, systemTurns: true },
};

const capabilities = (m) => {
    const can = (supported) => ({ supported });
    return {
        batch: can(true),
        effort: { supported: m.effort.length > 0, ...Object.fromEntries(EFFORTS.map((e) => [e, can(m.effort.includes(e))])) },
        structured_outputs: can(!!m.schema),
        thinking: { supported: m.thinking.length > 0, types: Object.fromEntries(['adaptive', 'enabled', 'disabled', 'between_tools'].map((k) => [k, can(m.thinking.includes(k))])) },
    };
};

// ---- checks: (value, path, context) => void ------------------------------------------------------------------------------

const string = (v, p) => {
    if (typeof v !== 'string') throw bad(p, 'Input should be a valid string');
};
const boolean = (v, p) => {
    if (typeof v !== 'boolean') throw bad(p, 'Input should be a valid boolean');
};
const integer = (min, max = Number.MAX_SAFE_INTEGER) => (v, p) => {
    if (!Number.isInteger(v)) throw bad(p, 'Input should be a valid integer');
    if (v < min || v > max) throw bad(p, `Input should be between ${min} and ${max}`);
};
const number = (min, max) => (v, p) => {
    if (typeof v !== 'number' || v < min || v > max) throw bad(p, `Input should be a number between ${min} and ${max}`);
};
const oneOf = (...names) => (v, p) => {
    if (!names.includes(v)) throw bad(p, `Input should be ${names.map((n) => `'${n}'`).join(', ')}`);
};
const pattern = (re) => (v, p) => {
    string(v, p);
    if (!re.test(v)) throw bad(p, `String should match pattern '${re.source}'`);
};
const members = (table, required = []) => (v, p, c) => {
    if (!isObject(v)) throw bad(p, 'Input should be an object');
    for (const name of required) if (!(name in v)) throw bad(p ? `${p}.${name}` : name, 'Field required');
    for (const [name, value] of Object.entries(v)) {
        const path = p ? `${p}.${name}` : name;
        if (!Object.hasOwn(table, name)) throw bad(path, 'Extra inputs are not permitted');
        table[name](value, path, c);
    }
};
const listOf = (check, min = 0) => (v, p, c) => {
    if (!Array.isArray(v)) throw bad(p, 'Input should be a valid list');
    if (v.length < min) throw bad(p, `List should have at least ${min} item`);
    v.forEach((item, i) => check(item, `${p}.${i}`, c));
};
const byType = (table) => (v, p, c) => {
    if (!isObject(v)) throw bad(p, 'Input should be an object');
    if (!Object.hasOwn(table, v.type)) throw bad(p, `Input tag '${v.type}' found using 'type' does not match any of the expected tags`);
    table[v.type](v, p, c);
};
const nullOr = (check) => (v, p, c) => v === null || check(v, p, c);

const cache = (v, p, c) => {
    members({ type: oneOf('ephemeral'), ttl: oneOf('5m', '1h') }, ['type'])(v, p);
    if (++c.breakpoints > 4) throw bad(p, 'A maximum of 4 blocks with cache_control may be provided.');
};
const base64 = (v, p) => {
    string(v, p);
    if (v === '' || !/^[A-Za-z0-9+/]*={0,2}$/.test(v)) throw bad(p, 'Invalid base64 data');
};
const MAGIC = { 'image/png': 'iVBOR', 'image/jpeg': '/9j/', 'image/gif': 'R0lG', 'image/webp': 'UklG' };
const url = pattern(/^https?:\/\/\S+$/);
const visibleText = (v, p) => {
    string(v, p);
    if (v.trim() === '') throw bad(p.replace(/\.text$/, ''), 'text content blocks must contain non-whitespace text');
};

const textBlock = members({ type: string, text: visibleText, cache_control: nullOr(cache), citations: nullOr(listOf(() => {})) }, ['text']);
const imageBlock = members({
    type: string,
    cache_control: nullOr(cache),
    source: byType({
        base64: (v, p) => {
            members({ type: string, media_type: oneOf(...Object.keys(MAGIC)), data: base64 }, ['media_type', 'data'])(v, p);
            if (!v.data.startsWith(MAGIC[v.media_type])) throw bad(`${p}.media_type`, 'The image was specified using another media type than it appears to be');
        },
        url: members({ type: string, url }, ['url']),
        file: members({ type: string, file_id: string }, ['file_id']),
    }),
}, ['source']);
const documentBlock = members({
    type: string,
    cache_control: nullOr(cache),
    title: nullOr(string),
    context: nullOr(string),
    citations: nullOr(members({ enabled: boolean })),
    source: byType({
        base64: members({ type: string, media_type: oneOf('application/pdf'), data: base64 }, ['media_type', 'data']),
        text: members({ type: string, media_type: oneOf('text/plain'), data: string }, ['media_type', 'data']),
        url: members({ type: string, url }, ['url']),
        content: members({ type: string, content: () => {} }, ['content']),
        file: members({ type: string, file_id: string }, ['file_id']),
    }),
}, ['source']);
const toolId = pattern(/^[a-zA-Z0-9_-]+$/);
const toolName = pattern(/^[a-zA-Z0-9_-]{1,128}$/);
const dictionary = (v, p) => {
    if (!isObject(v)) throw bad(p, 'Input should be a valid dictionary');
};
const USER_BLOCKS = {
    text: textBlock,
    image: imageBlock,
    document: documentBlock,
    tool_result: members({
        type: string,
        tool_use_id: toolId,
        is_error: boolean,
        cache_control: nullOr(cache),
        content: (v, p, c) => (typeof v === 'string' ? undefined : listOf(byType({ text: textBlock, image: imageBlock, document: documentBlock }))(v, p, c)),
    }, ['tool_use_id']),
};
const ASSISTANT_BLOCKS = {
    text: textBlock,
    tool_use: members({ type: string, id: toolId, name: toolName, input: dictionary, cache_control: nullOr(cache) }, ['id', 'name', 'input']),
    thinking: (v, p, c) => {
        members({ type: string, thinking: string, signature: string }, ['thinking', 'signature'])(v, p);
        if (v.signature !== c.fake.sign(v.thinking)) throw bad(p, 'Invalid `signature` in `thinking` block');
    },
    redacted_thinking: (v, p, c) => {
        members({ type: string, data: string }, ['data'])(v, p);
        if (v.data !== c.fake.sign('redacted')) throw bad(p, 'Invalid `data` in `redacted_thinking` block');
    },
};

const content = (blocks) => (v, p, c) => {
    if (typeof v === 'string') {
        if (v.trim() === '') throw bad(p, 'text content must be non-empty');
        return;
    }
    listOf(byType(blocks))(v, p, c);
    if (v.length === 0) throw bad(p, 'all messages must have non-empty content');
};
const message = (v, p, c) => {
    if (!isObject(v)) throw bad(p, 'Input should be an object');
    oneOf('user', 'assistant', ...(c.model.systemTurns ? ['system'] : []))(v.role, `${p}.role`);
    members({ role: string, content: content(v.role === 'assistant' ? ASSISTANT_BLOCKS : USER_BLOCKS) }, ['role', 'content'])(v, p, c);
};

/** One message per turn, as the API merges them, its content as blocks. */
function turnsOf(messages) {
    const turns = [];
    for (const { role, content: given } of messages) {
        const blocks = typeof given === 'string' ? [{ type: 'text', text: given }] : given;
        if (turns.at(-1)?.role === role) turns.at(-1).blocks.push(...blocks);
        else turns.push({ role, blocks: [...blocks] });
    }
    return turns;
}

function checkTurns(body, c) {
    const turns = turnsOf(body.messages);
    if (turns[0].role !== 'user') throw bad('messages.0', 'first message must use the "user" role');
    turns.forEach(({ role, blocks }, i) => {
        const calls = role === 'assistant' ? blocks.filter((b) => b.type === 'tool_use').map((b) => b.id) : [];
        const results = (turns[i + 1]?.blocks ?? []).filter((b) => b.type === 'tool_result').map((b) => b.tool_use_id);
        if (new Set(calls).size !== calls.length) throw bad(`messages.${i}`, '`tool_use` ids must be unique');
        const missing = calls.filter((id) => !results.includes(id));
        if (missing.length > 0) throw bad(`messages.${i}`, `\`tool_use\` ids were found without \`tool_result\` blocks immediately after: ${missing}`);
        if (role !== 'user') return;
        const own = blocks.filter((b) => b.type === 'tool_result').map((b) => b.tool_use_id);
        const before = (turns[i - 1]?.blocks ?? []).filter((b) => b.type === 'tool_use').map((b) => b.id);
        const stray = own.filter((id) => !before.includes(id));
        if (stray.length > 0) throw bad(`messages.${i}`, `unexpected \`tool_use_id\` found in \`tool_result\` blocks: ${stray}`);
        if (new Set(own).size !== own.length) throw bad(`messages.${i}`, 'each tool_use must have a single result');
        if (blocks.slice(0, own.length).some((b) => b.type !== 'tool_result')) throw bad(`messages.${i}`, '`tool_result` blocks must come before any other content');
    });
    const last = turns.at(-1);
    if (last.role === 'assistant') {
        if (!c.model.prefill) throw bad('messages', 'This model does not support assistant message prefill. The conversation must end with a user message.');
        const text = last.blocks.at(-1);
        if (text.type === 'text' && /\s$/.test(text.text)) throw bad('messages', 'final assistant content cannot end with trailing whitespace');
        if (body.thinking?.type === 'enabled' || body.output_config?.format) throw bad('messages', 'prefill is not possible here');
    }
    // inside a tool loop a manual budget wants the thinking that led to the calls
    const inLoop = last.role === 'user' && last.blocks.some((b) => b.type === 'tool_result');
    const thought = turns.at(-2)?.blocks[0];
    if (inLoop && body.thinking?.type === 'enabled' && !['thinking', 'redacted_thinking'].includes(thought?.type))
        throw bad(`messages.${turns.length - 2}.content.0.type`, `Expected \`thinking\` or \`redacted_thinking\`, but found \`${thought?.type}\`.`);
}

// ---- schemas of structured outputs and strict tools ----------------------------------------------------------------------------

const SCHEMA_MEMBERS = ['type', 'properties', 'required', 'items', 'enum', 'const', 'anyOf', 'allOf', '$ref', '$defs', 'definitions', 'description', 'title', 'format', 'minItems', 'additionalProperties'];
const FORMATS = ['date-time', 'time', 'date', 'duration', 'email', 'hostname', 'uri', 'ipv4', 'ipv6', 'uuid'];
function checkSchema(schema, p) {
    if (!isObject(schema)) throw bad(p, 'schema must be an object');
    for (const name of Object.keys(schema)) if (!SCHEMA_MEMBERS.includes(name)) throw bad(p, `For '${schema.type}' type, property '${name}' is not supported`);
    if (schema.format !== undefined && !FORMATS.includes(schema.format)) throw bad(p, `String format '${schema.format}' is not supported`);
    if (![undefined, 0, 1].includes(schema.minItems)) throw bad(p, "'minItems' must be 0 or 1");
    if (schema.$ref !== undefined && !schema.$ref.startsWith('#')) throw bad(p, 'external references are not supported');
    if ([schema.type].flat().includes('object') && schema.additionalProperties !== false) throw bad(p, "For 'object' type, 'additionalProperties' must be explicitly set to false");
    for (const name of ['properties', '$defs', 'definitions']) for (const [k, v] of Object.entries(schema[name] ?? {})) checkSchema(v, `${p}.${name}.${k}`);
    for (const name of ['anyOf', 'allOf']) (schema[name] ?? []).forEach((v, i) => checkSchema(v, `${p}.${name}.${i}`));
    if (schema.items) checkSchema(schema.items, `${p}.items`);
}

const tool = (v, p, c) => {
    if (!isObject(v)) throw bad(p, 'Input should be an object');
    if (v.type !== undefined && v.type !== 'custom') return;
    members({
        type: string,
        name: toolName,
        description: string,
        strict: boolean,
        eager_input_streaming: boolean, // as the SDK ai sends it
        cache_control: nullOr(cache),
        input_schema: (s, at) => {
            if (!isObject(s)) throw bad(at, 'Input should be an object');
            if (s.type !== 'object') throw bad(`${at}.type`, 'Field required');
        },
    }, ['name', 'input_schema'])(v, p, c);
    if (v.strict) checkSchema(v.input_schema, `${p}.input_schema`);
};

const BODY = {
    model: string,
    messages: listOf(message, 1),
    max_tokens: integer(0),
    system: (v, p, c) => (typeof v === 'string' ? visibleText(v, p) : listOf(byType({ text: textBlock }))(v, p, c)),
    temperature: number(0, 1),
    top_p: number(0, 1),
    top_k: integer(0),
    stop_sequences: listOf((v, p) => {
        string(v, p);
        if (v.trim() === '') throw bad(p, 'each stop sequence must contain non-whitespace');
    }),
    stream: boolean,
    tools: listOf(tool),
    tool_choice: byType({
        auto: members({ type: string, disable_parallel_tool_use: boolean }),
        any: members({ type: string, disable_parallel_tool_use: boolean }),
        tool: members({ type: string, name: toolName, disable_parallel_tool_use: boolean }, ['name']),
        none: members({ type: string }),
    }),
    thinking: byType({
        enabled: members({ type: string, budget_tokens: integer(1024), display: oneOf('summarized', 'omitted') }, ['budget_tokens']),
        adaptive: members({ type: string, display: oneOf('summarized', 'omitted') }),
        disabled: members({ type: string }),
    }),
    output_config: members({
        effort: nullOr(oneOf(...EFFORTS)),
        format: nullOr((v, p) => {
            members({ type: oneOf('json_schema'), schema: () => {} }, ['type', 'schema'])(v, p);
            checkSchema(v.schema, `${p}.schema`);
        }),
    }),
    metadata: members({ user_id: nullOr((v, p) => {
        string(v, p);
        if (v.length > 512) throw bad(p, 'String should have at most 512 characters');
    }) }),
    service_tier: oneOf('auto', 'standard_only'),
    cache_control: nullOr(cache),
};
const COUNT = Object.fromEntries(Object.entries(BODY).filter(([name]) => !['max_tokens', 'stream', 'temperature', 'top_p', 'top_k', 'stop_sequences', 'metadata', 'service_tier'].includes(name)));
// members that want a beta value
const BETA_MEMBERS = { context_management: 'context-management-2025-06-27' };

function checkBody(rec, fake, counts) {
    const { json: body } = rec;
    if (!isObject(body)) throw new Refusal(400, 'Input should be a valid dictionary');
    const betas = (rec.headers['anthropic-beta'] ?? '').split(',').map((b) => b.trim());
    const table = { ...(counts ? COUNT : BODY) };
    for (const [name, beta] of Object.entries(BETA_MEMBERS)) if (betas.includes(beta)) table[name] = () => {};
    const model = MODELS[body.model];
    if (typeof body.model === 'string' && !model) throw new Refusal(404, `model: ${body.model}`, 'not_found_error');
    const c = { fake, model: model ?? {}, breakpoints: 0 };
    if (counts && 'max_tokens' in body) throw bad('max_tokens', 'Extra inputs are not permitted');
    members(table, counts ? ['model', 'messages'] : ['model', 'messages', 'max_tokens'])(body, '', c);
    checkTurns(body, c);
    checkModel(body, model, rec.headers['anthropic-version']);
}

function checkModel(body, model, version) {
    const manual = body.thinking?.type === 'enabled';
    if (body.max_tokens > model.max) throw bad('max_tokens', `${body.max_tokens} > ${model.max}, which is the maximum allowed number of output tokens for ${body.model}`);
    for (const name of ['temperature', 'top_p', 'top_k']) {
        if (!(name in body)) continue;
        if (version === '2026-10-21') throw bad(name, 'Extra inputs are not permitted');
        if (model.sampling === 'none' && !(name !== 'top_k' && body[name] === 1)) throw bad(name, `${name} is not supported by this model`);
    }
    if (model.sampling === 'one' && 'temperature' in body && 'top_p' in body) throw bad('temperature', '`temperature` and `top_p` cannot both be specified for this model.');
    if (body.thinking && !model.thinking.includes(body.thinking.type)) throw bad('thinking', `"thinking.type.${body.thinking.type}" is not supported for this model`);
    if (manual) {
        if (body.thinking.budget_tokens >= body.max_tokens) throw bad('max_tokens', '`max_tokens` must be greater than `thinking.budget_tokens`');
        if ('temperature' in body && body.temperature !== 1) throw bad('temperature', '`temperature` may only be set to 1 when thinking is enabled');
        if ('top_p' in body && body.top_p < 0.95) throw bad('top_p', '`top_p` must be greater than or equal to 0.95 when thinking is enabled');
        if ('top_k' in body) throw bad('top_k', '`top_k` must be unset when thinking is enabled');
        if (['any', 'tool'].includes(body.tool_choice?.type)) throw bad('tool_choice', 'Thinking may not be enabled when tool_choice forces tool use.');
    }
    if (body.output_config?.effort && !model.effort.includes(body.output_config.effort)) throw bad('output_config.effort', 'This model does not support the effort parameter');
    if (body.output_config?.format && !model.schema) throw bad('output_config.format', 'This model does not support structured outputs');
    const names = (body.tools ?? []).map((t) => t.name);
    if (new Set(names).size !== names.length) throw bad('tools', 'Tool names must be unique.');
    if (body.tool_choice && names.length === 0) throw bad('tool_choice', 'tool_choice may only be specified while providing tools.');
    if (body.tool_choice?.type === 'tool' && !names.includes(body.tool_choice.name)) throw bad('tool_choice', `Tool '${body.tool_choice.name}' not found in provided tools`);
}

// ---- answers ---------------------------------------------------------------------------------------------------------------

export const USAGE = { input_tokens: 25, cache_creation_input_tokens: 3, cache_read_input_tokens: 7, output_tokens: 12 };
export const errorBody = (type, message) => JSON.stringify({ type: 'error', error: { type, message }, request_id: 'req_fake' });

let ids = 0;
const event = (type, rest = {}) => `event: ${type}\ndata: ${JSON.stringify({ type, ...rest })}\n\n`;

/** {content, stop_reason, …} as a whole message. */
function messageOf(rec, answer) {
    return {
        id: `msg_${++ids}`, type: 'message', role: 'assistant', model: rec.json.model, content: answer.content,
        stop_reason: answer.stop_reason ?? 'end_turn', stop_sequence: answer.stop_sequence ?? null, stop_details: answer.stop_details ?? null,
        usage: answer.usage ?? USAGE,
    };
}

/** The same as a stream, one event a piece. */
function* eventsOf(rec, answer) {
    const whole = messageOf(rec, answer);
    const { output_tokens: produced, output_tokens_details: details, ...input } = whole.usage;
    yield event('message_start', { message: { ...whole, content: [], stop_reason: null, stop_sequence: null, stop_details: null, usage: { ...input, output_tokens: 1 } } });
    yield event('ping');
    for (const [index, block] of whole.content.entries()) {
        const delta = (d) => event('content_block_delta', { index, delta: d });
        const cut = (text) => text.match(/[\s\S]{1,7}/gu) ?? [];
        switch (block.type) {
            case 'text':
                yield event('content_block_start', { index, content_block: { type: 'text', text: '' } });
                for (const text of answer.pieces ?? cut(block.text)) yield delta({ type: 'text_delta', text });
                break;
            case 'thinking':
                yield event('content_block_start', { index, content_block: { type: 'thinking', thinking: '', signature: '' } });
                for (const thinking of cut(block.thinking)) yield delta({ type: 'thinking_delta', thinking });
                yield delta({ type: 'signature_delta', signature: block.signature });
                break;
            case 'tool_use':
                yield event('content_block_start', { index, content_block: { ...block, input: {} } });
                yield delta({ type: 'input_json_delta', partial_json: '' });
                if (Object.keys(block.input).length > 0)
                    for (const partial_json of cut(JSON.stringify(block.input))) yield delta({ type: 'input_json_delta', partial_json });
                break;
            default:
                yield event('content_block_start', { index, content_block: block });
        }
        yield event('content_block_stop', { index });
    }
    yield event('message_delta', {
        delta: { stop_reason: whole.stop_reason, stop_sequence: whole.stop_sequence, stop_details: whole.stop_details },
        usage: { output_tokens: produced, ...(details && { output_tokens_details: details }) },
    });
    yield event('message_stop');
}

const HEAD = { 'request-id': 'req_fake', 'anthropic-organization-id': 'org-theirs', 'anthropic-ratelimit-requests-limit': '50', 'anthropic-ratelimit-requests-remaining': '49', 'anthropic-ratelimit-requests-reset': '2026-11-20T00:00:00Z' };
const JSON_HEAD = { 'content-type': 'application/json', ...HEAD };
const SSE_HEAD = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache', ...HEAD };

const write = (rec, bytes) => new Promise((done) => (rec.isGone ? done(false) : rec.res.write(bytes, () => done(!rec.isGone))));

export const play = {
    /** `answer`, or what a function of the request gives: {content, stop_reason, usage …}; streamed when asked for. */
    answer(answer = {}, { gapMs = 0, afterText = () => {} } = {}) {
        return async (rec) => {
            const given = typeof answer === 'function' ? answer(rec.json, rec) : answer;
            const full = { content: [{ type: 'text', text: 'Hello from Claude.' }], ...given };
            if (!rec.json.stream) {
                rec.sent = Buffer.from(JSON.stringify(messageOf(rec, full)));
                rec.res.writeHead(200, JSON_HEAD);
                rec.res.end(rec.sent);
                return;
            }
            rec.res.writeHead(200, SSE_HEAD);
            const pieces = [];
            for (const piece of eventsOf(rec, full)) {
                pieces.push(piece);
                if (!(await write(rec, piece))) return;
                if (piece.includes('"text_delta"')) await afterText(rec);
                if (gapMs > 0) await sleep(gapMs);
            }
            rec.sent = Buffer.from(pieces.join(''));
            rec.res.end();
        };
    },

    /** An error status with a body of its shape. */
    error(status, type, message, headers = {}) {
        return (rec) => {
            rec.sent = Buffer.from(errorBody(type, message));
            rec.res.writeHead(status, { ...JSON_HEAD, ...headers });
            rec.res.end(rec.sent);
        };
    },

    /** A stream that says some text, then fails: `how` is 'error' (an error event), 'cut' (the connection) or 'end' (a clean end without message_stop). */
    broken(how, { text = 'half of it', type = 'overloaded_error' } = {}) {
        return async (rec) => {
            rec.res.writeHead(200, SSE_HEAD);
            const pieces = [...eventsOf(rec, { content: [{ type: 'text', text }] })];
            const upTo = text === '' ? 2 : pieces.findIndex((p) => p.startsWith('event: content_block_stop'));
            for (const piece of pieces.slice(0, upTo)) await write(rec, piece);
            if (how === 'error') await write(rec, event('error', { error: { type, message: 'Overloaded' } }));
            if (how === 'cut') {
                await sleep(20);
                rec.req.socket.destroy();
            } else {
                rec.res.end();
            }
        };
    },

    /** These very bytes, in pieces of so many. */
    bytes(bytes, { size = Infinity } = {}) {
        return async (rec) => {
            rec.sent = Buffer.from(bytes);
            rec.res.writeHead(200, SSE_HEAD);
            for (let i = 0; i < rec.sent.length; i += size) if (!(await write(rec, rec.sent.subarray(i, Math.min(i + size, rec.sent.length))))) return;
            rec.res.end();
        };
    },
};

// ---- the server -----------------------------------------------------------------------------------------------------------

const LEAKS = ['cookie', 'x-forwarded-for', 'x-forwarded-host', 'forwarded', 'proxy-authorization', 'x-goog-api-key', 'x-claude-code-session-id', 'x-stainless-lang', 'expect', 'via'];
const ALLOWED = ['idempotency-key', 'host', 'user-agent', 'accept', 'accept-encoding', 'content-type', 'content-length', 'connection', 'x-api-key', 'authorization'];

class FakeAnthropic {
    constructor({ keys = ['sk-ant-api03-one', 'sk-ant-api03-two'] }) {
        this.keys = keys; // those that begin sk-ant-oat must come as bearer with their beta
        this.forbidden = [CLIENT_KEY];
        this.requests = [];
        this.refusals = [];
        this.inOrder = [];
        this.byKey = new Map();
        this.fallback = play.answer();
        this.models = Object.keys(MODELS);
        this.kept = new Kept(this, (...args) => new Refusal(...args), (params, rec) => checkBody({ json: params, headers: rec.headers }, this, false));
        this.sockets = new Set();
        this.server = http.createServer({ keepAliveTimeout: 60_000 }, (req, res) => this.serve(req, res));
        this.server.on('checkContinue', (req, res) => this.serve(req, res));
        this.server.on('connection', (socket) => {
            this.sockets.add(socket);
            socket.on('close', () => this.sockets.delete(socket));
            socket.on('error', () => {});
        });
    }

    get base() {
        return `http://127.0.0.1:${this.port}`;
    }

    /** What this platform puts under its thinking. */
    sign(thinking) {
        return createHmac('sha256', 'fake').update(thinking).digest('base64');
    }

    thinking(text) {
        return { type: 'thinking', thinking: text, signature: this.sign(text) };
    }

    always(behave) {
        this.fallback = behave;
    }

    next(...behaviours) {
        this.inOrder.push(...behaviours);
    }

    key(key, behave) {
        this.byKey.set(key, behave);
    }

    get last() {
        return this.requests.at(-1);
    }

    checkHead(rec) {
        const { method, headers } = rec;
        const [path, query] = rec.url.split('?');
        for (const text of this.forbidden)
            if (rec.url.includes(text) || rec.rawHeaders.some((h) => h.includes(text))) throw new Refusal(400, `leak: the request head holds ${text}`);
        for (const name of Object.keys(headers)) {
            if (LEAKS.includes(name)) throw new Refusal(400, `leak: the header ${name} came through`);
            if (!ALLOWED.includes(name) && !name.startsWith('anthropic-')) throw new Refusal(400, `unexpected header ${name}`);
        }
        if (headers.host !== `127.0.0.1:${this.port}`) throw new Refusal(421, `Host is ${headers.host}`);
        const routes = { '/v1/messages': 'POST', '/v1/messages/count_tokens': 'POST', '/v1/models': 'GET' };
        rec.kept = keptRoute(method, path);
        if (!routes[path] && !rec.kept) throw new Refusal(404, 'Not found', 'not_found_error');
        if (!rec.kept && routes[path] !== method) throw new Refusal(405, 'Method Not Allowed');
        if (method === 'POST' && ![undefined, 'beta=true'].includes(query)) throw new Refusal(400, `unexpected query ?${query}`);
        const names = rec.rawHeaders.filter((_, i) => i % 2 === 0).map((n) => n.toLowerCase());
        if (new Set(names).size !== names.length) throw new Refusal(400, `a header occurs twice: ${names}`);
        const bearer = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1];
        const key = headers['x-api-key'];
        if (!key === !bearer) throw new Refusal(401, key ? 'two credentials' : 'x-api-key header is required', 'authentication_error');
        if (!this.keys.includes(key ?? bearer)) throw new Refusal(401, 'invalid x-api-key', 'authentication_error');
        if ((key ?? bearer).startsWith('sk-ant-oat') && (!bearer || !/(^|,)oauth-2025-04-20(,|$)/.test(headers['anthropic-beta'] ?? '')))
            throw new Refusal(401, 'OAuth authentication is currently not supported.', 'authentication_error');
        rec.key = key ?? bearer;
        if (!['2023-06-01', '2026-10-21'].includes(headers['anthropic-version'])) throw bad('anthropic-version', 'header is required');
        const isForm = rec.kept?.name === 'createFile';
        if (method === 'POST' && rec.kept?.name !== 'cancelBatch' && !isForm && headers['content-type'] !== 'application/json') throw new Refusal(400, `content-type is ${headers['content-type']}`);
        return path;
    }

    async serve(req, res) {
        const rec = { req, res, method: req.method, url: req.url, headers: req.headers, rawHeaders: req.rawHeaders, body: Buffer.alloc(0), json: null, isGone: false };
        rec.gone = new Promise((done) => {
            res.on('close', () => {
                rec.isGone = !res.writableFinished;
                rec.goneAt = performance.now();
                done();
            });
        });
        try {
            const path = this.checkHead(rec);
            if (path === '/v1/models') return this.serveModels(rec);
            this.requests.push(rec);
            const pieces = [];
            for await (const piece of req) pieces.push(piece);
            rec.body = Buffer.concat(pieces);
            for (const text of this.forbidden) if (rec.body.includes(text)) throw new Refusal(400, `leak: the body holds ${text}`);
            if (rec.kept) {
                const behave = this.inOrder.shift();
                if (behave) return await behave(rec);
                const { status, type, body } = this.kept.answer(rec, rec.kept);
                rec.sent = Buffer.from(body);
                res.writeHead(status, { ...JSON_HEAD, 'content-type': type });
                res.end(rec.sent);
                return;
            }
            try {
                rec.json = JSON.parse(rec.body.toString('utf8'));
            } catch (error) {
                throw new Refusal(400, `The request body is not valid JSON: ${error.message}`);
            }
            const counts = path.endsWith('/count_tokens');
            checkBody(rec, this, counts);
            if (rec.json.stream && rec.headers.accept !== 'text/event-stream') throw new Refusal(400, `accept is ${rec.headers.accept}`);
            if (counts) {
                rec.sent = Buffer.from('{"input_tokens": 42}');
                res.writeHead(200, JSON_HEAD);
                res.end(rec.sent);
                return;
            }
            await (this.inOrder.shift() ?? this.byKey.get(rec.key) ?? this.fallback)(rec);
        } catch (error) {
            if (!(error instanceof Refusal)) {
                if (req.socket.destroyed) return;
                throw error;
            }
            this.refusals.push({ status: error.status, message: error.message });
            rec.sent = Buffer.from(errorBody(error.type, error.message));
            if (!res.headersSent) res.writeHead(error.status, { ...JSON_HEAD, ...error.headers });
            res.end(rec.sent);
            req.resume();
        }
    }

    serveModels(rec) {
        const query = new URLSearchParams(rec.url.split('?')[1]);
        const limit = Math.min(Number(query.get('limit') ?? 20), this.pageMax ?? 1000);
        const from = query.has('after_id') ? this.models.indexOf(query.get('after_id')) + 1 : 0;
        const page = this.models.slice(from, from + limit);
        const data = page.map((id) => ({
            type: 'model', id, display_name: id, created_at: '2026-01-01T00:00:00Z', lifecycle: 'active',
            max_input_tokens: 200_000, max_tokens: MODELS[id]?.max ?? null, capabilities: MODELS[id] ? capabilities(MODELS[id]) : null,
        }));
        rec.res.writeHead(200, JSON_HEAD);
        rec.res.end(JSON.stringify({ data, has_more: from + limit < this.models.length, first_id: page[0] ?? null, last_id: page.at(-1) ?? null }));
    }

    listen() {
        return new Promise((done) => this.server.listen(0, '127.0.0.1', () => done((this.port = this.server.address().port))));
    }

    close() {
        for (const socket of this.sockets) socket.destroy();
        return new Promise((done) => this.server.close(done));
    }
}

/** options: keys (accepted credentials), strict (false: refusals do not fail the test). */
export async function startFakeAnthropic(t, options = {}) {
    const fake = new FakeAnthropic(options);
    await fake.listen();
    atEnd(t, async () => {
        await fake.close();
        if (options.strict !== false && fake.refusals.length > 0) throw new Error(`the fake upstream refused: ${JSON.stringify(fake.refusals)}`);
    });
    return fake;
}

/** The provider section for a gateway in front of this fake. */
export function providerFor(fake, more = {}) {
    return { type: 'anthropic', base_url: fake.base, credentials: fake.keys, models: ['*'], ...more };
}
