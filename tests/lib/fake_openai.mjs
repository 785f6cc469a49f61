// A strict OpenAI-compatible server that plays one behaviour per credential, or one per request in order of arrival.
// It refuses what the real one refuses and what must not leak out of a gateway, and remembers everything it saw.
import { once } from 'node:events';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { CLIENT_KEY, atEnd } from './gateway.mjs';

// ---- what a request must look like ------------------------------------------------------------------------------

const isObject = (v) => typeof v === 'object' && v !== null && !Array.isArray(v);

/** A refusal: what the fake answers instead of playing its behaviour. */
class Refusal extends Error {
    constructor(status, message, { param = null, code = null, type = 'invalid_request_error', headers = {} } = {}) {
        super(message);
        Object.assign(this, { status, param, code, type, headers });
    }
}

const wrongType = (param, expected, v) =>
    new Refusal(400, `Invalid type for '${param}': expected ${expected}, got ${JSON.stringify(v)?.slice(0, 60)}.`, { param, code: 'invalid_type' });
const wrongValue = (param, v) => new Refusal(400, `Invalid value for '${param}': ${JSON.stringify(v).slice(0, 60)}.`, { param, code: 'invalid_value' });

// Checks: (value, path) => void, throwing a Refusal. null means absent at the top level only.
const string = (v, p) => {
    if (typeof v !== 'string') throw wrongType(p, 'a string', v);
};
const boolean = (v, p) => {
    if (typeof v !== 'boolean') throw wrongType(p, 'a boolean', v);
};
const number = (min, max) => (v, p) => {
    if (typeof v !== 'number') throw wrongType(p, 'a number', v);
    if (v < min || v > max) throw wrongValue(p, v);
};
const integer = (min, max = Number.MAX_SAFE_INTEGER) => (v, p) => {
    if (!Number.isInteger(v)) throw wrongType(p, 'an integer', v);
    if (v < min || v > max) throw wrongValue(p, v);
};
const oneOf = (...names) => (v, p) => {
    if (typeof v !== 'string') throw wrongType(p, 'a string', v);
    if (!names.includes(v)) throw wrongValue(p, v);
};
const anyObject = (v, p) => {
    if (!isObject(v)) throw wrongType(p, 'an object', v);
};
const listOf = (check, min, max) => (v, p) => {
    if (!Array.isArray(v)) throw wrongType(p, 'an array', v);
    if (v.length < min || v.length > max) throw wrongValue(p, v);
    v.forEach((item, i) => check(item, `${p}[${i}]`));
};
const members = (table, required = []) => (v, p) => {
    anyObject(v, p);
    for (const name of required)
        if (!(name in v)) throw new Refusal(400, `Missing required parameter: '${p}.${name}'.`, { param: `${p}.${name}`, code: 'missing_required_parameter' });
    for (const [name, value] of Object.entries(v)) {
        const param = p ? `${p}.${name}` : name;
        if (!Object.hasOwn(table, name)) throw new Refusal(400, `Unknown parameter: '${param}'.`, { param, code: 'unknown_parameter' });
        table[name](value, param);
    }
};
const nullOr = (check) => (v, p) => v === null || check(v, p);
const either = (isFirst, first, second) => (v, p) => (isFirst(v) ? first(v, p) : second(v, p));
const isString = (v) => typeof v === 'string';

const functionName = (v, p) => {
    string(v, p);
    if (!/^[a-zA-Z0-9_-]{1,64}$/.test(v)) throw wrongValue(p, v);
};
const imageUrl = (v, p) => {
    string(v, p);
    if (!/^(https?:\/\/|data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*$)/.test(v)) throw wrongValue(p, v);
};
const textPart = members({ type: oneOf('text'), text: string }, ['type', 'text']);
const userPart = (v, p) => {
    anyObject(v, p);
    switch (v.type) {
        case 'text':
            return textPart(v, p);
        case 'image_url':
            return members({ type: string, image_url: members({ url: imageUrl, detail: oneOf('auto', 'low', 'high') }, ['url']) }, ['image_url'])(v, p);
        case 'input_audio':
            return members({ type: string, input_audio: members({ data: string, format: oneOf('wav', 'mp3') }, ['data', 'format']) }, ['input_audio'])(v, p);
        case 'file':
            return members({ type: string, file: members({ filename: string, file_data: string, file_id: string }) }, ['file'])(v, p);
        default:
            throw wrongValue(`${p}.type`, v.type ?? null);
    }
};
const textContent = either(isString, string, listOf(textPart, 1, 1000));
const callId = (v, p) => {
    string(v, p);
    if (v.length > 40) throw wrongValue(p, v);
};
const toolCall = members({ id: callId, type: oneOf('function'), function: members({ name: functionName, arguments: string }, ['name', 'arguments']) }, ['id', 'type', 'function']);
const MESSAGES = {
    system: members({ role: string, content: textContent, name: string }, ['content']),
    developer: members({ role: string, content: textContent, name: string }, ['content']),
    user: members({ role: string, content: either(isString, string, listOf(userPart, 1, 1000)), name: string }, ['content']),
    assistant: members({
        role: string,
        content: nullOr(either(isString, string, listOf(anyObject, 1, 1000))),
        refusal: nullOr(string),
        name: string,
        audio: nullOr(members({ id: string }, ['id'])),
        annotations: listOf(anyObject, 0, 1000),
        tool_calls: listOf(toolCall, 1, 128),
        function_call: nullOr(anyObject),
    }),
    tool: members({ role: string, content: textContent, tool_call_id: string }, ['content', 'tool_call_id']),
};
const message = (v, p) => {
    anyObject(v, p);
    if (!isString(v.role) || !Object.hasOwn(MESSAGES, v.role)) throw wrongValue(`${p}.role`, v.role ?? null);
    MESSAGES[v.role](v, p);
};

/** Every call is answered before another role appears, and every answer has its call. */
function checkToolOrder(messages) {
    let open = new Set();
    messages.forEach((m, i) => {
        if (m.role === 'tool') {
            if (!open.delete(m.tool_call_id)) throw new Refusal(400, `messages[${i}]: no call with this id precedes it.`, { param: `messages[${i}].tool_call_id` });
            return;
        }
        if (open.size > 0) throw new Refusal(400, `messages[${i}]: a tool call is not answered yet.`, { param: `messages[${i}].role` });
        open = new Set((m.tool_calls ?? []).map((call) => call.id));
    });
    if (open.size > 0) throw new Refusal(400, 'the last tool calls are not answered.', { param: 'messages' });
}

const CHAT_MEMBERS = {
    model: string,
    messages: listOf(message, 1, 10_000),
    max_completion_tokens: integer(1),
    max_tokens: integer(1),
    temperature: number(0, 2),
    top_p: number(0, 1),
    presence_penalty: number(-2, 2),
    frequency_penalty: number(-2, 2),
    n: integer(1, 128),
    stop: either(isString, string, listOf(string, 1, 4)),
    seed: (v, p) => {
        if (!Number.isInteger(v)) throw wrongType(p, 'an integer', v);
    },
    logprobs: boolean,
    top_logprobs: integer(0, 20),
    logit_bias: anyObject,
    stream: boolean,
    stream_options: members({ include_usage: boolean, include_obfuscation: boolean }),
    tools: listOf(
        members({ type: oneOf('function'), function: members({ name: functionName, description: string, parameters: anyObject, strict: nullOr(boolean) }, ['name']) }, ['type', 'function']),
        1,
        128,
    ),
    tool_choice: either(isString, oneOf('none', 'auto', 'required'), members({ type: oneOf('function'), function: members({ name: functionName }, ['name']) }, ['type', 'function'])),
    parallel_tool_calls: boolean,
    response_format: members({ type: oneOf('text', 'json_object', 'json_schema'), json_schema: anyObject }, ['type']),
    reasoning_effort: oneOf('none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'),
    verbosity: oneOf('low', 'medium', 'high'),
    modalities: listOf(oneOf('text', 'audio'), 1, 2),
    audio: members({ voice: string, format: string }, ['voice', 'format']),
    service_tier: oneOf('auto', 'default', 'flex', 'scale', 'priority', 'fast'),
    store: boolean,
    metadata: anyObject,
    user: string,
    safety_identifier: string,
    prompt_cache_key: string,
};

/** Throws a Refusal for the first thing the real service would refuse. `allow`: names of members that pass unread. */
export function checkChatBody(body, allow = []) {
    if (!isObject(body)) throw wrongType('body', 'an object', body);
    for (const name of ['model', 'messages'])
        if (body[name] === undefined || body[name] === null)
            throw new Refusal(400, `Missing required parameter: '${name}'.`, { param: name, code: 'missing_required_parameter' });
    for (const [name, value] of Object.entries(body)) {
        if (allow.includes(name) || value === null) continue;
        if (!Object.hasOwn(CHAT_MEMBERS, name)) throw new Refusal(400, `Unknown parameter: '${name}'.`, { param: name, code: 'unknown_parameter' });
        CHAT_MEMBERS[name](value, name);
    }
    if (body.stream_options && body.stream !== true) throw new Refusal(400, "'stream_options' needs 'stream'.", { param: 'stream_options' });
    if (body.tool_choice && !body.tools) throw new Refusal(400, "'tool_choice' needs 'tools'.", { param: 'tool_choice' });
    if (body.top_logprobs && body.logprobs !== true) throw new Refusal(400, "'top_logprobs' needs 'logprobs'.", { param: 'top_logprobs' });
    checkToolOrder(body.messages);
}

// What a gateway must keep to itself: the client's credentials and cookies, where the client came from, hop-by-hop fields.
const LEAKS = [
    'expect', 'cookie', 'x-api-key', 'x-goog-api-key', 'proxy-authorization', 'proxy-connection', 'proxy-authenticate', 'forwarded', 'via', 'x-forwarded-for',
    'x-forwarded-host', 'x-forwarded-proto', 'x-real-ip', 'te', 'trailer', 'upgrade', 'keep-alive', 'origin', 'referer', 'x-chatmux-target', 'x-chatmux-resumable', 'last-event-id',
];

export const LEAKING_HEADERS = LEAKS;

// ---- what it answers ------------------------------------------------------------------------------------------

let serial = 0;

export const USAGE = {
    prompt_tokens: 11,
    completion_tokens: 7,
    total_tokens: 18,
    prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
    completion_tokens_details: { reasoning_tokens: 0, audio_tokens: 0, accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
};

export const errorBody = (message, { type = 'invalid_request_error', param = null, code = null } = {}) => JSON.stringify({ error: { message, type, param, code } });

export function completion(model, text, { usage = USAGE, finish = 'stop' } = {}) {
    return {
        id: `chatcmpl-fake${++serial}`,
        object: 'chat.completion',
        created: 1_790_000_000,
        model,
        choices: [{ index: 0, message: { role: 'assistant', content: text, refusal: null, annotations: [] }, logprobs: null, finish_reason: finish }],
        usage,
        service_tier: 'default',
        system_fingerprint: 'fp_fake',
    };
}

/** The chunks of one streamed answer, as the real service spells them. */
export class ChunkWriter {
    constructor(model, withUsage) {
        this.common = { id: `chatcmpl-fake${++serial}`, object: 'chat.completion.chunk', created: 1_790_000_000, model, service_tier: 'default', system_fingerprint: 'fp_fake' };
        this.withUsage = withUsage;
    }

    event(choices, usage = null) {
        return `data: ${JSON.stringify({ ...this.common, choices, ...(this.withUsage && { usage }) })}\n\n`;
    }

    delta(delta, finish = null) {
        return this.event([{ index: 0, delta, logprobs: null, finish_reason: finish }]);
    }

    role() {
        return this.delta({ role: 'assistant', content: '', refusal: null });
    }

    text(content) {
        return this.delta({ content });
    }

    /** finish_reason, the usage chunk when it was asked for, [DONE]. */
    end(finish = 'stop', usage = USAGE) {
        return this.delta({}, finish) + (this.withUsage ? this.event([], usage) : '') + 'data: [DONE]\n\n';
    }
}

const SSE_HEAD = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' };
const JSON_HEAD = { 'content-type': 'application/json' };

/** Writes with back-pressure; false when the other side has gone. */
async function write(rec, data) {
    if (rec.res.destroyed || rec.res.socket?.destroyed) return false;
    rec.sent += Buffer.byteLength(data);
    if (rec.res.write(data)) return true;
    await Promise.race([once(rec.res, 'drain').catch(() => {}), rec.gone]);
    return !rec.isGone;
}

function stream(rec, headers = {}) {
    rec.res.writeHead(200, { ...SSE_HEAD, ...headers });
    rec.res.flushHeaders();
    rec.res.socket.setNoDelay(true);
    return new ChunkWriter(rec.json.model, rec.json.stream_options?.include_usage === true);
}

/** Behaviours: each returns async (rec) => void, where rec is the request as recorded, with rec.res to answer on. */
export const play = {
    /** A good answer, streamed or not as the request asks. */
    ok({ text = 'Hello from upstream.', pieces = null, headers = {}, usage = USAGE, finish = 'stop', gapMs = 0 } = {}) {
        return async (rec) => {
            if (rec.json.stream !== true) {
                const body = JSON.stringify(completion(rec.json.model, pieces?.join('') ?? text, { usage, finish }));
                rec.res.writeHead(200, { ...JSON_HEAD, 'content-length': Buffer.byteLength(body), ...headers });
                rec.res.end(body);
                return;
            }
            const w = stream(rec, headers);
            await write(rec, w.role());
            for (const piece of pieces ?? text.match(/.{1,6}/gsu) ?? []) {
                if (!(await write(rec, w.text(piece)))) return;
                if (gapMs > 0) await sleep(gapMs);
            }
            rec.res.end(w.end(finish, usage));
        };
    },

    /** Any status, headers and body. */
    status(code, body, headers = {}) {
        return (rec) => {
            const bytes = Buffer.from(body);
            rec.res.writeHead(code, { ...JSON_HEAD, 'content-length': bytes.length, ...headers });
            rec.res.end(bytes);
        };
    },

    error(code, message, fields = {}, headers = {}) {
        return play.status(code, errorBody(message, fields), headers);
    },

    rateLimited(retryAfter = null) {
        return play.error(429, 'Rate limit reached for requests', { type: 'requests', code: 'rate_limit_exceeded' }, retryAfter === null ? {} : { 'retry-after': String(retryAfter) });
    },

    badKey() {
        return play.error(401, 'Incorrect API key provided: sk-**up1.', { code: 'invalid_api_key' });
    },

    html(code = 200) {
        return play.status(code, '<!DOCTYPE html><html><head><title>Bad gateway</title></head><body>nginx</body></html>', { 'content-type': 'text/html' });
    },

    errorIn200(message = 'The server had an error', fields = { type: 'server_error' }) {
        return play.status(200, errorBody(message, fields));
    },

    /** 200, event stream, and then an error event instead of an answer. */
    errorEvent(message = 'Overloaded', fields = { type: 'server_error', code: 'overloaded' }) {
        return (rec) => {
            stream(rec);
            rec.res.end(`data: ${errorBody(message, fields)}\n\n`);
        };
    },

    cutBeforeHead() {
        return (rec) => rec.res.socket.destroy();
    },

    resetBeforeHead() {
        return (rec) => rec.res.socket.resetAndDestroy();
    },

    /** A stream that breaks off after the pieces. how: 'close' ends TCP inside the chunked body, 'reset', or 'end': a clean end without end marker. */
    cutMidStream({ pieces = ['one ', 'two '], how = 'close', gapMs = 5 } = {}) {
        return async (rec) => {
            const w = stream(rec);
            await write(rec, w.role());
            for (const piece of pieces) {
                await write(rec, w.text(piece));
                await sleep(gapMs);
            }
            if (how === 'end') rec.res.end();
            else if (how === 'reset') rec.res.socket.resetAndDestroy();
            else rec.res.socket.destroy();
        };
    },

    /** A body that is not streamed and ends before its Content-Length. */
    cutBody() {
        return (rec) => {
            const body = JSON.stringify(completion(rec.json.model, 'never whole'));
            rec.res.writeHead(200, { ...JSON_HEAD, 'content-length': Buffer.byteLength(body) });
            rec.res.write(body.slice(0, 60), () => rec.res.socket.destroy());
        };
    },

    hang() {
        return () => {};
    },

    /** Head and role delta, then silence for ever. */
    hangAfterHead() {
        return async (rec) => {
            await write(rec, stream(rec).role());
        };
    },

    /** Pieces, then silence for ever. */
    hangAfter(pieces) {
        return async (rec) => {
            const w = stream(rec);
            await write(rec, w.role());
            for (const piece of pieces) await write(rec, w.text(piece));
        };
    },

    /** Bytes that are no HTTP at all. */
    garbage(bytes = '\x00\x01\x02SSH-2.0-what\r\n\r\n') {
        return (rec) => rec.res.socket.end(bytes);
    },

    /** 200 application/json whose body cannot be read. */
    unreadable() {
        return play.status(200, '{"id":"chatcmpl-1","object":"chat.comple');
    },

    /** Role delta, then comments and empty events for so long, then an error. */
    chatterThenError({ ms = 3000, everyMs = 250 } = {}) {
        return async (rec) => {
            const w = stream(rec);
            await write(rec, w.role());
            for (let spent = 0, i = 0; spent < ms; spent += everyMs, i++) {
                if (!(await write(rec, i % 3 === 0 ? ': PROCESSING\n\n' : i % 3 === 1 ? w.delta({}) : 'event: ping\ndata: {}\n\n'))) return;
                await sleep(everyMs);
            }
            rec.res.end(`data: ${errorBody('The server is overloaded', { type: 'server_error', code: 'overloaded' })}\n\n`);
        };
    },

    /** Sends delta n+1 only after the test has called confirm() for delta n. */
    lockstep(pieces) {
        const turn = new Turnstile();
        const behave = async (rec) => {
            const w = stream(rec);
            await write(rec, w.role());
            for (const piece of pieces) {
                await write(rec, w.text(piece));
                await Promise.race([turn.wait(), rec.gone]);
                if (rec.isGone) return;
            }
            rec.res.end(w.end());
        };
        return Object.assign(behave, { confirm: () => turn.open() });
    },

    /** An answer of so many bytes of text in pieces of `piece` bytes, as fast as the reader takes it. */
    big({ bytes, piece = 4096, letter = 'x' }) {
        return async (rec) => {
            const filler = letter.repeat(piece);
            if (rec.json.stream !== true) return play.ok({ text: letter.repeat(bytes) })(rec);
            const w = stream(rec);
            await write(rec, w.role());
            for (let left = bytes; left > 0; left -= piece)
                if (!(await write(rec, w.text(left >= piece ? filler : letter.repeat(left))))) return;
            rec.res.end(w.end());
        };
    },

    /** Exactly these bytes as a stream's body, in pieces of `size` bytes, each in a packet of its own. */
    bytes(body, { size = Infinity, gapMs = 1, headers = SSE_HEAD } = {}) {
        return async (rec) => {
            const bytes = Buffer.from(body);
            rec.res.writeHead(200, headers);
            rec.res.flushHeaders();
            rec.res.socket.setNoDelay(true);
            for (let i = 0; i < bytes.length; i += size) {
                if (!(await write(rec, bytes.subarray(i, i + size)))) return;
                if (gapMs > 0 && size !== Infinity) await sleep(gapMs);
            }
            rec.res.end();
        };
    },

    /** A gzip-coded answer, whether or not it was asked for. */
    gzip({ text = 'Hello, squeezed.' } = {}) {
        return (rec) => {
            const body = gzipSync(JSON.stringify(completion(rec.json.model, text)));
            rec.res.writeHead(200, { ...JSON_HEAD, 'content-encoding': 'gzip', 'content-length': body.length });
            rec.res.end(body);
        };
    },

    /** Waits before another behaviour begins. */
    after(ms, behave) {
        return async (rec) => {
            await Promise.race([sleep(ms), rec.gone]);
            if (!rec.isGone) await behave(rec);
        };
    },
};

export class Turnstile {
    constructor() {
        this.tickets = 0;
        this.waiting = [];
    }

    open() {
        const next = this.waiting.shift();
        if (next) next();
        else this.tickets++;
    }

    wait() {
        if (this.tickets > 0) return void this.tickets--;
        return new Promise((done) => this.waiting.push(done));
    }
}

/** Bytes of the answer to `rec` that the other process has read; `queues` from tcpQueues(). Exact to one piece. */
export function takenBytes(rec, queues) {
    const { localPort, remotePort, bytesWritten, writableLength } = rec.req.socket;
    const { tx } = queues.get(`${localPort}>${remotePort}`);
    const { rx } = queues.get(`${remotePort}>${localPort}`);
    return bytesWritten - rec.writtenBefore - writableLength - tx - rx;
}

// ---- the server -----------------------------------------------------------------------------------------------

class FakeOpenai {
    constructor({ keys, allow = [], readBody = true, models = ['m1', 'm2'] }) {
        Object.assign(this, { keys, allow, readBody, models });
        this.forbidden = [CLIENT_KEY]; // texts that must not occur in any request's line, headers or body
        this.requests = []; // chat requests, as recorded; see record()
        this.refusals = []; // what the strict check refused: {status, message, param, code}
        this.sockets = new Set();
        this.byKey = new Map();
        this.inOrder = []; // behaviours taken one by one, before those of the credentials
        this.fallback = play.ok();
        this.server = http.createServer({ keepAliveTimeout: 60_000, requestTimeout: 0 }, (req, res) => this.serve(req, res));
        // Node answers `Expect: 100-continue` by itself unless we take it over: here it is a fault to be reported.
        this.server.on('checkContinue', (req, res) => this.serve(req, res));
        this.server.on('connection', (socket) => {
            socket.serial = ++serial;
            this.sockets.add(socket);
            socket.on('close', () => this.sockets.delete(socket));
            socket.on('error', () => {});
        });
        this.server.on('clientError', (error, socket) => {
            if (!['ECONNRESET', 'EPIPE'].includes(error.code)) this.refusals.push({ status: 400, message: `not HTTP: ${error.message}` });
            socket.destroy();
        });
    }

    get host() {
        return `127.0.0.1:${this.port}`;
    }

    get base() {
        return `http://${this.host}/v1`;
    }

    /** Every request plays this. */
    always(behave) {
        this.fallback = behave;
    }

    /** The next requests play these, in order of arrival, whatever their credential. */
    next(...behaviours) {
        this.inOrder.push(...behaviours);
    }

    /** This credential's requests play this. */
    key(key, behave) {
        this.byKey.set(key, behave);
    }

    get last() {
        return this.requests.at(-1);
    }

    record(req, res) {
        const rec = {
            req,
            res,
            method: req.method,
            url: req.url,
            headers: req.headers,
            rawHeaders: req.rawHeaders,
            body: Buffer.alloc(0),
            json: null,
            key: null,
            socket: req.socket.serial,
            writtenBefore: req.socket.bytesWritten, // on this connection, by earlier answers
            at: performance.now(),
            sent: 0, // bytes of the answer's body handed to the socket
            isGone: false, // the other side closed before the answer was complete
            goneAt: null,
        };
        rec.gone = new Promise((done) => {
            res.on('close', () => {
                if (!res.writableFinished) {
                    rec.isGone = true;
                    rec.goneAt = performance.now();
                }
                done();
            });
        });
        return rec;
    }

    checkHead(rec) {
        const { method, headers } = rec;
        const [path, query] = rec.url.split('?');
        for (const text of this.forbidden)
            if (rec.url.includes(text) || rec.rawHeaders.some((h) => h.includes(text))) throw new Refusal(400, `leak: the request head holds ${text}`);
        for (const name of LEAKS) if (name in headers) throw new Refusal(400, `leak: the header ${name} came through`, { param: name });
        if (!['keep-alive', 'close', undefined].includes(headers.connection?.toLowerCase())) throw new Refusal(400, `Connection: ${headers.connection}`, { param: 'connection' });
        if (headers.host !== this.host) throw new Refusal(421, `Host is ${headers.host}`, { param: 'host' });
        if (query !== undefined) throw new Refusal(400, `unexpected query ?${query}`, { param: '?' });
        if (path !== '/v1/chat/completions' && path !== '/v1/models') throw new Refusal(404, `Invalid URL (${method} ${path})`, { param: 'path' });
        const expected = path === '/v1/models' ? 'GET' : 'POST';
        if (method !== expected) throw new Refusal(405, `Not allowed to ${method} on ${path}`, { code: 'method_not_supported', headers: { allow: expected } });
        const names = rec.rawHeaders.filter((_, i) => i % 2 === 0).map((n) => n.toLowerCase());
        for (const name of ['authorization', 'content-type', 'host', 'content-length'])
            if (names.filter((n) => n === name).length > 1) throw new Refusal(400, `${name} occurs twice`, { param: name });
        const bearer = /^Bearer (\S+)$/.exec(headers.authorization ?? '');
        if (!bearer) throw new Refusal(401, "You didn't provide an API key.");
        if (!this.keys.includes(bearer[1])) throw new Refusal(401, `Incorrect API key provided: ${bearer[1]}.`, { code: 'invalid_api_key' });
        rec.key = bearer[1];
        if (method === 'POST' && !/^application\/json(; ?charset=utf-8)?$/i.test(headers['content-type'] ?? ''))
            throw new Refusal(415, `Unsupported content type: ${headers['content-type']}`, { param: 'content-type' });
    }

    checkBody(rec) {
        const text = rec.body.toString('utf8');
        if (!Buffer.from(text).equals(rec.body)) throw new Refusal(400, 'the body is not UTF-8');
        for (const secret of this.forbidden) if (text.includes(secret)) throw new Refusal(400, `leak: the body holds ${secret}`);
        try {
            rec.json = JSON.parse(text);
        } catch (error) {
            throw new Refusal(400, `We could not parse the JSON body of your request. (${error.message})`);
        }
        checkChatBody(rec.json, this.allow);
    }

    async serve(req, res) {
        const rec = this.record(req, res);
        try {
            this.checkHead(rec);
            if (rec.method === 'GET') return this.serveModels(rec);
            this.requests.push(rec);
            if (this.readBody === false) return; // a server that never takes the body
            const pieces = [];
            for await (const piece of req) pieces.push(piece);
            rec.body = Buffer.concat(pieces);
            this.checkBody(rec);
            const behave = this.inOrder.shift() ?? this.byKey.get(rec.key) ?? this.fallback;
            await behave(rec);
        } catch (error) {
            if (!(error instanceof Refusal)) {
                if (req.socket.destroyed) return; // the gateway hung up while we read or wrote
                throw error;
            }
            const { status, message, type, param, code, headers } = error;
            this.refusals.push({ status, message, param, code });
            if (!res.headersSent) res.writeHead(status, { ...JSON_HEAD, ...headers });
            res.end(errorBody(message, { type, param, code }));
            req.resume();
        }
    }

    serveModels(rec) {
        const data = this.models.map((id) => ({ id, object: 'model', created: 1_700_000_000, owned_by: 'fake' }));
        play.status(200, JSON.stringify({ object: 'list', data }))(rec);
    }

    listen(port = 0) {
        return new Promise((done) => this.server.listen(port, '127.0.0.1', () => done((this.port = this.server.address().port))));
    }

    close() {
        for (const socket of this.sockets) socket.destroy();
        return new Promise((done) => this.server.close(done));
    }
}

/**
 * options: keys (accepted credentials), allow (body members that pass although unknown), strict (false: refusals do not
 * fail the test), readBody (false: never reads request bodies).
 */
export async function startFakeOpenai(t, options = {}) {
    const fake = new FakeOpenai({ keys: ['sk-up-1', 'sk-up-2', 'sk-up-3'], ...options });
    await fake.listen();
    atEnd(t, async () => {
        await fake.close();
        if (options.strict !== false && fake.refusals.length > 0) throw new Error(`the fake upstream refused: ${JSON.stringify(fake.refusals)}`);
    });
    return fake;
}

/** The provider section for a gateway in front of this fake. */
export function providerFor(fake, more = {}) {
    return { type: 'openai', base_url: fake.base, credentials: fake.keys, models: ['m1'], ...more };
}
