// A strict Generative Language API: refuses what the real one refuses and what must not leak out of a gateway, plays one behaviour per request,
// and remembers everything it saw. What it checks is in fake_gemini_check.mjs.
import { once } from 'node:events';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLIENT_KEY, atEnd } from './gateway.mjs';
import { LEAKING_HEADERS } from './fake_openai.mjs';
import { Refusal, checkContentBody, checkCountBody, checkEmbedBody, checkBatchEmbedBody } from './fake_gemini_check.mjs';

export const MODELS = {
    'gemini-2.5-flash': { gen: 2.5, output: 65_536, input: 1_048_576, methods: ['generateContent', 'countTokens'] },
    'gemini-2.5-pro': { gen: 2.5, pro: true, output: 65_536, input: 1_048_576, methods: ['generateContent', 'countTokens'] },
    'gemini-3-pro-preview': { gen: 3, pro: true, output: 65_536, input: 1_048_576, methods: ['generateContent', 'countTokens'] },
    'gemini-3.5-flash': { gen: 3, output: 65_536, input: 1_048_576, methods: ['generateContent', 'countTokens'] },
    'gemini-2.5-flash-image': { gen: 2.5, image: true, output: 32_768, input: 32_768, methods: ['generateContent', 'countTokens'] },
    'gemini-embedding-001': { gen: 2.5, output: 1, input: 2048, methods: ['embedContent', 'batchEmbedContents', 'countTokens'] },
};

const STATUS_NAMES = {
    400: 'INVALID_ARGUMENT', 401: 'UNAUTHENTICATED', 403: 'PERMISSION_DENIED', 404: 'NOT_FOUND', 429: 'RESOURCE_EXHAUSTED', 500: 'INTERNAL', 503: 'UNAVAILABLE',
    504: 'DEADLINE_EXCEEDED',
};

export const errorBody = (code, message, { status = STATUS_NAMES[code], details } = {}) => ({ error: { code, message, status, ...(details && { details }) } });

const errorInfo = (reason) => ({ '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason, domain: 'googleapis.com', metadata: { service: 'generativelanguage.googleapis.com' } });
const retryInfo = (delay) => ({ '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: delay });
const quotaFailure = (quotaId) => ({ '@type': 'type.googleapis.com/google.rpc.QuotaFailure', violations: [{ quotaMetric: 'generativelanguage.googleapis.com/requests', quotaId, quotaValue: '50' }] });

export const USAGE = { promptTokenCount: 11, candidatesTokenCount: 5, totalTokenCount: 18, thoughtsTokenCount: 2, promptTokensDetails: [{ modality: 'TEXT', tokenCount: 11 }] };

const JSON_HEAD = { 'content-type': 'application/json; charset=UTF-8', vary: 'Origin', 'x-content-type-options': 'nosniff', server: 'scaffolding on HTTPServer2' };

let serial = 0;

/** Writes one answer as chunks of a stream (SSE or a JSON array) or as one object. */
class Answer {
    constructor(rec) {
        this.rec = rec;
        this.first = true;
        this.common = { modelVersion: rec.model, responseId: `fake-${++serial}` };
        this.parts = [];
        this.rest = {};
    }

    head(headers = {}) {
        const { res, stream, array } = this.rec;
        if (res.headersSent) return;
        res.writeHead(200, { ...JSON_HEAD, ...(stream && !array && { 'content-type': 'text/event-stream', 'content-disposition': 'attachment' }), ...headers });
        res.flushHeaders();
        res.socket?.setNoDelay(true);
    }

    /** One response object; false when the reader has gone. */
    async object(object) {
        const { rec } = this;
        this.head();
        const text = rec.array ? `${this.first ? '[' : ',\r\n'}${JSON.stringify(object, null, 2)}\n` : `data: ${JSON.stringify(object)}\r\n\r\n`;
        this.first = false;
        return write(rec, text);
    }

    /** Parts of candidate 0 (or of another one), with more members of the candidate and of the object. */
    async chunk(parts, { finish, index = 0, candidate = {}, ...more } = {}) {
        for (const part of parts) if (part.thoughtSignature) this.rec.fake.signatures.add(part.thoughtSignature);
        const one = { content: { ...(parts.length > 0 && { parts }), role: 'model' }, ...(finish && { finishReason: finish }), ...(index > 0 && { index }), ...candidate };
        if (this.rec.stream) return this.object({ candidates: [one], ...more, ...this.common });
        this.candidates ??= [];
        const seen = (this.candidates[index] ??= { content: { parts: [], role: 'model' } });
        // what a stream gives in deltas stands joined in one whole answer
        for (const part of parts) {
            const last = seen.content.parts.at(-1);
            const plain = (p) => p && typeof p.text === 'string' && !p.thoughtSignature;
            if (plain(last) && plain(part) && !last.thought === !part.thought) last.text += part.text;
            else if (part.text !== '' || part.thoughtSignature) seen.content.parts.push({ ...part });
        }
        Object.assign(seen, { ...(finish && { finishReason: finish }), index, ...candidate });
        Object.assign(this.rest, more);
        return true;
    }

    async end() {
        const { rec } = this;
        if (rec.stream) {
            this.head();
            rec.res.end(rec.array ? (this.first ? '[]' : ']') : '');
            return;
        }
        sendJson(rec, 200, { ...(this.candidates && { candidates: this.candidates.filter(Boolean) }), ...this.rest, ...this.common });
    }
}

async function write(rec, data) {
    if (rec.res.destroyed || rec.res.socket?.destroyed) return false;
    rec.sent += Buffer.byteLength(data);
    if (rec.res.write(data)) return true;
    await Promise.race([once(rec.res, 'drain').catch(() => {}), rec.gone]);
    return !rec.isGone;
}

function sendJson(rec, code, body, headers = {}) {
    const text = typeof body === 'string' ? body : `${JSON.stringify(body, null, 2)}\n`;
    rec.res.writeHead(code, { ...JSON_HEAD, 'content-length': Buffer.byteLength(text), ...headers });
    rec.res.end(text);
}

const LETTERS = /[\s\S]{1,6}/gu;

/** Behaviours of generateContent and streamGenerateContent: async (rec) => void. */
export const play = {
    /**
     * thoughts: texts of thought parts (sent when the request asked to include them); pieces: texts; parts: further parts, one per chunk; together: the
     * parts in one chunk; emptyEnd: the finish stands on an empty text part.
     */
    ok({ text = 'Hello from Gemini.', pieces = null, thoughts = [], parts = [], together = false, finish = 'STOP', usage = USAGE, gapMs = 0, afterText = () => {}, emptyEnd = false, signature = null } = {}) {
        return async (rec) => {
            const a = new Answer(rec);
            const shown = rec.json.generationConfig?.thinkingConfig?.includeThoughts === true ? thoughts : [];
            const running = (extra = {}) => ({ usageMetadata: { promptTokenCount: usage.promptTokenCount, totalTokenCount: usage.promptTokenCount, ...extra } });
            for (const thought of shown) if (!(await a.chunk([{ text: thought, thought: true }], running()))) return;
            const texts = parts.length > 0 && pieces === null ? [] : (pieces ?? (rec.stream ? text.match(LETTERS) : [text]));
            for (const piece of texts) {
                if (!(await a.chunk([{ text: piece }], running({ candidatesTokenCount: 1 })))) return;
                await afterText(rec);
                if (gapMs > 0) await sleep(gapMs);
            }
            if (together) await a.chunk(parts, running());
            else for (const part of parts) await a.chunk([part], running());
            await a.chunk(emptyEnd || signature ? [{ text: '', ...(signature && { thoughtSignature: signature }) }] : [], { finish, usageMetadata: usage });
            await a.end();
        };
    },

    /** Function calls as the model makes them: on generation 3 the first one carries a signature. */
    calls(calls, { ids = false, more = {}, ...options } = {}) {
        return async (rec) => {
            const parts = calls.map(({ name, args }, i) => ({
                functionCall: { ...(ids && { id: `fc-${++serial}` }), name, ...(args !== undefined && { args }) },
                ...(i === 0 && MODELS[rec.model]?.gen >= 3 && { thoughtSignature: Buffer.from(`signature ${++serial} \xff\xfe`, 'latin1').toString('base64') }),
            }));
            await play.ok({ parts, ...options, ...more })(rec);
        };
    },

    /** Several candidates, their pieces taking turns. */
    candidates(texts) {
        return async (rec) => {
            const a = new Answer(rec);
            for (let round = 0; texts.some((pieces) => pieces[round] !== undefined); round++)
                for (const [index, pieces] of texts.entries()) if (pieces[round] !== undefined) await a.chunk([{ text: pieces[round] }], { index });
            for (const index of texts.keys()) await a.chunk([], { index, finish: 'STOP', usageMetadata: USAGE });
            await a.end();
        };
    },

    blocked(blockReason = 'PROHIBITED_CONTENT') {
        return async (rec) => {
            const body = { promptFeedback: { blockReason }, usageMetadata: { promptTokenCount: 9, totalTokenCount: 9 }, modelVersion: rec.model, responseId: 'fake-blocked' };
            if (!rec.stream) return sendJson(rec, 200, body);
            const a = new Answer(rec);
            await a.object(body);
            await a.end();
        };
    },

    /** 200 without any candidate and without a reason. */
    noCandidates() {
        return async (rec) => {
            const body = { usageMetadata: { promptTokenCount: 9, totalTokenCount: 9 }, modelVersion: rec.model };
            if (!rec.stream) return sendJson(rec, 200, body);
            const a = new Answer(rec);
            await a.object(body);
            await a.end();
        };
    },

    status(code, body, headers = {}) {
        return (rec) => sendJson(rec, code, body, headers);
    },

    error(code, message, fields = {}, headers = {}) {
        return (rec) => {
            const body = errorBody(code, message, fields);
            sendJson(rec, code, rec.array ? [body] : body, headers);
        };
    },

    badKey() {
        return play.error(400, 'API key not valid. Please pass a valid API key.', { details: [errorInfo('API_KEY_INVALID')] });
    },

    expiredKey() {
        return play.error(400, 'API key expired. Please renew the API key.', { details: [errorInfo('API_KEY_INVALID')] });
    },

    suspended() {
        return play.error(403, "Permission denied: Consumer 'api_key:AIzaXXX' has been suspended.", { details: [errorInfo('CONSUMER_SUSPENDED')] });
    },

    serviceDisabled() {
        return play.error(403, 'Generative Language API has not been used in project 4711 before or it is disabled.', { details: [errorInfo('SERVICE_DISABLED')] });
    },

    wrongPlace() {
        return play.error(400, 'User location is not supported for the API use.', { status: 'FAILED_PRECONDITION' });
    },

    billing() {
        return play.error(400, 'Gemini API free tier is not available in your country. Please enable billing on your project in Google AI Studio.', { status: 'FAILED_PRECONDITION' });
    },

    rateLimited(delay = '17s') {
        return play.error(429, 'You exceeded your current quota, please check your plan and billing details.', {
            details: [quotaFailure('GenerateRequestsPerMinutePerProjectPerModel-FreeTier'), ...(delay ? [retryInfo(delay)] : [])],
        });
    },

    dayQuota(delay = '31s') {
        return play.error(429, 'You exceeded your current quota, please check your plan and billing details.', {
            details: [quotaFailure('GenerateRequestsPerDayPerProjectPerModel-FreeTier'), retryInfo(delay)],
        });
    },

    tooLong() {
        return play.error(400, 'The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).');
    },

    overloaded() {
        return play.error(503, 'The model is overloaded. Please try again later.');
    },

    html(code = 502) {
        return play.status(code, '<!DOCTYPE html><html><title>Error 502 (Server Error)!!1</title></html>', { 'content-type': 'text/html; charset=UTF-8' });
    },

    /** 200, some text, then an error object instead of the rest. `bare`: as JSON without a frame around it. */
    errorMidStream({ pieces = ['one ', 'two '], code = 503, message = 'The model is overloaded. Please try again later.', bare = false } = {}) {
        return async (rec) => {
            const a = new Answer(rec);
            for (const piece of pieces) {
                await a.chunk([{ text: piece }]);
                await sleep(5);
            }
            if (bare) await write(rec, JSON.stringify(errorBody(code, message), null, 2));
            else await a.object(errorBody(code, message));
            rec.res.end(rec.array ? ']' : '');
        };
    },

    /** Pieces, and then: 'end' a clean end without a finishReason, 'close' TCP ends, 'reset'. */
    cut({ pieces = ['one ', 'two '], how = 'end' } = {}) {
        return async (rec) => {
            const a = new Answer(rec);
            for (const piece of pieces) {
                await a.chunk([{ text: piece }]);
                await sleep(5);
            }
            if (how === 'end') await a.end();
            else if (how === 'reset') rec.res.socket.resetAndDestroy();
            else rec.res.socket.destroy();
        };
    },

    hangAfter(pieces) {
        return async (rec) => {
            const a = new Answer(rec);
            for (const piece of pieces) await a.chunk([{ text: piece }]);
        };
    },

    hang() {
        return () => {};
    },

    /** Exactly these bytes, in packets of `size`. */
    bytes(body, { size = Infinity, gapMs = 1, headers = {} } = {}) {
        return async (rec) => {
            const bytes = Buffer.from(body);
            new Answer(rec).head(headers); // an event stream, unless an array was asked for
            for (let i = 0; i < bytes.length; i += size) {
                if (!(await write(rec, bytes.subarray(i, i + size)))) return;
                if (gapMs > 0 && size !== Infinity) await sleep(gapMs);
            }
            rec.res.end();
        };
    },
};

// ---- the server -----------------------------------------------------------------------------------------------

class FakeGemini {
    constructor({ keys, split = 0 }) {
        Object.assign(this, { keys, split });
        this.forbidden = [CLIENT_KEY];
        this.signatures = new Set(); // handed out so far
        this.requests = []; // generateContent and streamGenerateContent
        this.others = []; // everything else that was accepted
        this.refusals = [];
        this.inOrder = [];
        this.byKey = new Map();
        this.fallback = play.ok();
        this.sockets = new Set();
        this.server = http.createServer({ keepAliveTimeout: 60_000, requestTimeout: 0 }, (req, res) => this.serve(req, res));
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

    get last() {
        return this.requests.at(-1);
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

    record(req, res) {
        const rec = { fake: this, req, res, method: req.method, url: req.url, headers: req.headers, rawHeaders: req.rawHeaders, body: Buffer.alloc(0), json: null, sent: 0, isGone: false };
        rec.gone = new Promise((done) => {
            res.on('close', () => {
                rec.isGone = !res.writableFinished;
                rec.goneAt = performance.now();
                done();
            });
        });
        return rec;
    }

    checkHead(rec) {
        const { method, headers } = rec;
        const [path, query = ''] = rec.url.split('?');
        for (const text of this.forbidden)
            if (rec.url.includes(text) || rec.rawHeaders.some((h) => h.includes(text))) throw new Refusal(400, `leak: the request head holds ${text}`);
        for (const name of LEAKING_HEADERS.filter((n) => n !== 'x-goog-api-key')) if (name in headers) throw new Refusal(400, `leak: the header ${name} came through`);
        if ('authorization' in headers) throw new Refusal(401, 'Request had invalid authentication credentials.');
        if (!['keep-alive', 'close', undefined].includes(headers.connection?.toLowerCase())) throw new Refusal(400, `Connection: ${headers.connection}`);
        if (headers.host !== `127.0.0.1:${this.port}`) throw new Refusal(400, `Host is ${headers.host}`);
        const names = rec.rawHeaders.filter((_, i) => i % 2 === 0).map((n) => n.toLowerCase());
        for (const name of ['x-goog-api-key', 'content-type', 'host', 'content-length'])
            if (names.filter((n) => n === name).length > 1) throw new Refusal(400, `${name} occurs twice`);
        if (!headers['x-goog-api-key'])
            throw new Refusal(403, 'Method doesn\'t allow unregistered callers (callers without established identity).');
        if (!this.keys.includes(headers['x-goog-api-key']))
            throw new Refusal(400, 'API key not valid. Please pass a valid API key.', { details: [errorInfo('API_KEY_INVALID')], expected: true });
        rec.key = headers['x-goog-api-key'];
        const m = /^\/v1beta\/models(?:\/([A-Za-z0-9._-]+)(?::([A-Za-z]+))?)?$/.exec(path);
        if (!m) throw new Refusal(404, `Not found: ${method} ${path}`, { html: true });
        [, rec.model, rec.op] = m;
        if (rec.op ? method !== 'POST' : method !== 'GET') throw new Refusal(404, `no ${method} here`, { html: true });
        const allowed = rec.op === 'streamGenerateContent' ? ['', 'alt=sse'] : rec.op === undefined ? ['', 'pageSize=1000'] : [''];
        if (!allowed.includes(query) && !(rec.op === undefined && /^pageSize=\d+(&pageToken=\w+)?$/.test(query))) throw new Refusal(400, `unexpected query ?${query}`);
        rec.query = query;
        rec.stream = rec.op === 'streamGenerateContent';
        rec.array = rec.stream && query !== 'alt=sse';
        if (method === 'POST' && !/^application\/json(; ?charset=utf-8)?$/i.test(headers['content-type'] ?? '')) throw new Refusal(400, `content type ${headers['content-type']}`);
    }

    checkBody(rec) {
        const text = rec.body.toString('utf8');
        if (!Buffer.from(text).equals(rec.body)) throw new Refusal(400, 'the body is not UTF-8');
        for (const secret of this.forbidden) if (text.includes(secret)) throw new Refusal(400, `leak: the body holds ${secret}`);
        try {
            rec.json = JSON.parse(text);
        } catch (error) {
            throw new Refusal(400, `Invalid JSON payload received. ${error.message}`);
        }
        const model = MODELS[rec.model];
        if (!model)
            throw new Refusal(404, `models/${rec.model} is not found for API version v1beta, or is not supported for ${rec.op}. Call ListModels to see the list of available models.`, { expected: true });
        if (!model.methods.includes(rec.op.replace('streamGenerate', 'generate'))) throw new Refusal(404, `models/${rec.model} is not supported for ${rec.op}.`);
        const context = { name: rec.model, model, signatures: this.signatures };
        switch (rec.op) {
            case 'generateContent':
            case 'streamGenerateContent':
                return checkContentBody(rec.json, context);
            case 'countTokens':
                return checkCountBody(rec.json, context);
            case 'embedContent':
                return checkEmbedBody(rec.json, context);
            default:
                return checkBatchEmbedBody(rec.json, context);
        }
    }

    async answer(rec) {
        if (rec.method === 'GET') return this.serveModels(rec);
        const pieces = [];
        for await (const piece of rec.req) pieces.push(piece);
        rec.body = Buffer.concat(pieces);
        this.checkBody(rec);
        const generate = rec.op === 'generateContent' || rec.stream;
        (generate ? this.requests : this.others).push(rec);
        const behave = this.inOrder.shift() ?? this.byKey.get(rec.key);
        if (behave) return behave(rec);
        if (generate) return this.fallback(rec);
        if (rec.op === 'countTokens') return sendJson(rec, 200, { totalTokens: 31, promptTokensDetails: [{ modality: 'TEXT', tokenCount: 31 }] });
        const vector = (content, dims) => ({ values: Array.from({ length: dims ?? 3 }, (_, i) => (content.parts[0].text.length + i) / 8) });
        if (rec.op === 'embedContent') return sendJson(rec, 200, { embedding: vector(rec.json.content, rec.json.outputDimensionality) });
        sendJson(rec, 200, { embeddings: rec.json.requests.map((r) => vector(r.content, r.outputDimensionality)) });
    }

    async serve(req, res) {
        const rec = this.record(req, res);
        try {
            this.checkHead(rec);
            await this.answer(rec);
        } catch (error) {
            if (!(error instanceof Refusal)) {
                if (req.socket.destroyed) return;
                throw error;
            }
            if (!error.expected) this.refusals.push({ status: error.status, message: error.message });
            if (res.headersSent) return res.end();
            const body = errorBody(error.status, error.message, { details: error.details });
            if (error.html) sendJson(rec, error.status, '<!DOCTYPE html><html><title>Error 404 (Not Found)!!1</title></html>', { 'content-type': 'text/html; charset=UTF-8' });
            else sendJson(rec, error.status, rec.array ? [body] : body);
            req.resume();
        }
    }

    describe(name) {
        const m = MODELS[name];
        return {
            name: `models/${name}`, version: '001', displayName: name.replaceAll('-', ' '), description: 'fake', inputTokenLimit: m.input, outputTokenLimit: m.output,
            supportedGenerationMethods: m.methods, ...(m.gen && { temperature: 1, topP: 0.95, topK: 64, maxTemperature: 2, thinking: !m.image }),
        };
    }

    /** The list in two pages, so that a reader which stops after the first one is found out. */
    serveModels(rec) {
        this.others.push(rec);
        if (rec.model) return MODELS[rec.model] ? sendJson(rec, 200, this.describe(rec.model)) : sendJson(rec, 404, errorBody(404, `models/${rec.model} is not found`));
        const names = Object.keys(MODELS);
        const second = rec.query.includes('pageToken=');
        sendJson(rec, 200, { models: (second ? names.slice(4) : names.slice(0, 4)).map((n) => this.describe(n)), ...(!second && { nextPageToken: 'page2' }) });
    }

    listen(port = 0) {
        return new Promise((done) => this.server.listen(port, '127.0.0.1', () => done((this.port = this.server.address().port))));
    }

    close() {
        for (const socket of this.sockets) socket.destroy();
        return new Promise((done) => this.server.close(done));
    }
}

/** options: keys (accepted credentials), strict (false: refusals do not fail the test). */
export async function startFakeGemini(t, options = {}) {
    const fake = new FakeGemini({ keys: ['AIzaFakeKey-1', 'AIzaFakeKey-2', 'AIzaFakeKey-3'], ...options });
    await fake.listen();
    atEnd(t, async () => {
        await fake.close();
        if (options.strict !== false && fake.refusals.length > 0) throw new Error(`the fake upstream refused: ${JSON.stringify(fake.refusals)}`);
    });
    return fake;
}

export function providerFor(fake, more = {}) {
    return { type: 'gemini', base_url: fake.base, credentials: fake.keys, models: Object.keys(MODELS), ...more };
}
