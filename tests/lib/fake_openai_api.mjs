// The rest of a strict OpenAI-compatible server: every route that is no chat. It is written from the protocol notes, refuses one wrong header, field or
// member, and answers with bytes that a test can compare. Each credential can be given a behaviour of its own.
import http from 'node:http';
import { CLIENT_KEY, atEnd } from './gateway.mjs';
import { LEAKING_HEADERS, errorBody } from './fake_openai.mjs';

class Refusal extends Error {
    constructor(status, message, fields = {}) {
        super(message);
        Object.assign(this, { status, fields });
    }
}
const refuse = (message, param = null) => {
    throw new Refusal(400, message, { param });
};

// ---- what bodies must look like ---------------------------------------------------------------------------------

const is = {
    string: (v) => typeof v === 'string',
    filled: (v) => typeof v === 'string' && v.length > 0,
    boolean: (v) => typeof v === 'boolean',
    integer: (v) => Number.isInteger(v),
    number: (v) => typeof v === 'number',
    object: (v) => typeof v === 'object' && v !== null && !Array.isArray(v),
    strings: (v) => Array.isArray(v) && v.length > 0 && v.every(is.string),
    tokens: (v) => Array.isArray(v) && v.length > 0 && v.every(is.integer),
    any: () => true,
    oneOf: (...names) => (v) => names.includes(v),
    either: (...checks) => (v) => checks.some((check) => check(v)),
};
const tokenLists = (v) => Array.isArray(v) && v.length > 0 && v.every(is.tokens);

/** Every member is known and right; those with a ! in front of their name must be there. */
function checkMembers(body, table) {
    if (!is.object(body)) refuse('the body is no object');
    const rules = new Map(Object.entries(table).map(([name, check]) => [name.replace('!', ''), check]));
    for (const name of Object.keys(table).filter((n) => n.startsWith('!')).map((n) => n.slice(1)))
        if (!(name in body)) refuse(`Missing required parameter: '${name}'.`, name);
    for (const [name, value] of Object.entries(body)) {
        if (!rules.has(name)) refuse(`Unknown parameter: '${name}'.`, name);
        if (!rules.get(name)(value)) refuse(`Invalid value for '${name}': ${JSON.stringify(value)?.slice(0, 60)}.`, name);
    }
}

/** RFC 7578, read by hand: [{name, filename, type, bytes}]. */
export function parseForm(contentType, body) {
    const boundary = /^multipart\/form-data; ?boundary=(?:"([^"]+)"|([^;\s]+))$/.exec(contentType ?? '')?.slice(1).find(Boolean);
    if (!boundary) throw new Refusal(415, `no form: ${contentType}`);
    const parts = [];
    let at = 0;
    const expect = (text) => {
        if (body.toString('latin1', at, at + text.length) !== text) refuse(`the form has no ${JSON.stringify(text)} at ${at}`);
        at += text.length;
    };
    expect(`--${boundary}`);
    while (body.toString('latin1', at, at + 2) !== '--') {
        expect('\r\n');
        const headEnd = body.indexOf('\r\n\r\n', at);
        if (headEnd < 0) refuse('a part has no end of its head');
        const head = Object.fromEntries(body.toString('utf8', at, headEnd).split('\r\n').map((line) => {
            const [, name, value] = /^([\w-]+): ?(.*)$/.exec(line) ?? refuse(`a line of a part's head is ${line}`);
            return [name.toLowerCase(), value];
        }));
        const end = body.indexOf(`\r\n--${boundary}`, headEnd + 2);
        if (end < 0) refuse('a part has no end');
        const disposition = head['content-disposition'] ?? refuse('a part has no Content-Disposition');
        const [, name] = /; name="([^"]*)"/.exec(disposition) ?? refuse(`no name in ${disposition}`);
        const filename = /; filename="([^"]*)"/.exec(disposition)?.[1];
        parts.push({ name, filename, type: head['content-type'], bytes: body.subarray(headEnd + 4, end) });
        at = end + 2 + 2 + boundary.length;
    }
    return parts;
}

/** Fields: name -> check of a text, or 'file'. A name that ends with [] may repeat. */
function checkForm(parts, table) {
    const rules = new Map(Object.entries(table).map(([name, check]) => [name.replace('!', ''), check]));
    const seen = new Set();
    for (const { name, filename, bytes } of parts) {
        if (!rules.has(name)) refuse(`Unknown parameter: '${name}'.`, name);
        if (seen.has(name) && !name.endsWith('[]')) refuse(`'${name}' occurs twice`, name);
        seen.add(name);
        const check = rules.get(name);
        if (check === 'file' ? !filename || bytes.length === 0 : !check(bytes.toString('utf8'))) refuse(`Invalid value for '${name}'.`, name);
    }
    for (const name of Object.keys(table).filter((n) => n.startsWith('!')).map((n) => n.slice(1)))
        if (!seen.has(name) && !seen.has(`${name}[]`)) refuse(`Missing required parameter: '${name}'.`, name);
}

const numeric = (v) => /^-?\d+(\.\d+)?$/.test(v);
const IMAGE_FIELDS = {
    n: (v) => is.integer(Number(v)),
    size: is.filled,
    quality: is.filled,
    background: is.filled,
    output_format: is.oneOf('png', 'jpeg', 'webp'),
    response_format: is.oneOf('url', 'b64_json'),
    user: is.filled,
};

// ---- what it answers ------------------------------------------------------------------------------------------

export const PIXEL = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mNgYGAAAAAEAAHI6uv5AAAAAElFTkSuQmCC';
export const SOUND = Buffer.from(Array.from({ length: 40_000 }, (_, i) => (i * 7 + (i >> 8)) & 0xff)); // no text in any coding
export const IMAGE_USAGE = { total_tokens: 57, input_tokens: 17, output_tokens: 40, input_tokens_details: { text_tokens: 17, image_tokens: 0 } };

const json = (value, headers = {}) => ({ status: 200, type: 'application/json', body: Buffer.from(JSON.stringify(value)), headers });
const sse = (...events) => ({
    status: 200,
    type: 'text/event-stream; charset=utf-8',
    body: Buffer.from(events.map((e) => (is.string(e) ? e : `event: ${e.type}\ndata: ${JSON.stringify(e)}\n\n`)).join('')),
});

/** The vector that an input has: three numbers that float32 holds exactly. */
export const vectorOf = (input) => {
    const n = is.string(input) ? Buffer.byteLength(input) : input.length;
    return [n / 2, -n / 4, 0.1].map(Math.fround);
};

function completions(rec) {
    const b = rec.json;
    checkMembers(b, {
        '!model': is.filled, '!prompt': is.either(is.string, is.strings, is.tokens, tokenLists), max_tokens: is.integer, n: is.integer, best_of: is.integer,
        echo: is.boolean, suffix: is.string, logprobs: is.integer, stop: is.either(is.string, is.strings), stream: is.boolean,
        stream_options: is.object, temperature: is.number, user: is.string, seed: is.integer,
    });
    const usage = { prompt_tokens: 5, completion_tokens: 3, total_tokens: 8 };
    const head = { id: 'cmpl-1', object: 'text_completion', created: 1_790_000_000, model: b.model };
    const choice = (text, finish, index = 0) => ({ text, index, logprobs: null, finish_reason: finish });
    if (b.stream !== true) return json({ ...head, choices: [choice(' and more', 'length')], usage });
    const chunk = (choices, extra = {}) => `data: ${JSON.stringify({ ...head, choices, ...extra })}\n\n`;
    return sse(
        chunk([choice(' and', null)]), chunk([choice(' more', null)]), chunk([choice('', 'length')]),
        b.stream_options?.include_usage ? chunk([], { usage }) : '', 'data: [DONE]\n\n',
    );
}

function embeddings(rec) {
    const b = rec.json;
    checkMembers(b, {
        '!model': is.filled, '!input': is.either(is.filled, is.strings, is.tokens, tokenLists), encoding_format: is.oneOf('float', 'base64'), dimensions: is.integer, user: is.string,
    });
    const inputs = is.string(b.input) || is.tokens(b.input) ? [b.input] : b.input;
    const data = inputs.map((input, index) => ({
        object: 'embedding',
        index,
        embedding: b.encoding_format === 'base64' ? Buffer.from(Float32Array.from(vectorOf(input)).buffer).toString('base64') : vectorOf(input),
    }));
    return json({ object: 'list', data, model: b.model, usage: { prompt_tokens: 9, total_tokens: 9 } });
}

function moderations(rec) {
    checkMembers(rec.json, { model: is.filled, '!input': is.either(is.string, Array.isArray) });
    const results = [{ flagged: false, categories: { 'self-harm/intent': false }, category_scores: { 'self-harm/intent': 1.5e-7 }, category_applied_input_types: {} }];
    return json({ id: 'modr-1', model: rec.json.model ?? 'omni-moderation-latest', results });
}

const pictureEvents = (kind, n) =>
    Array.from({ length: n }, (_, i) => [
        { type: `${kind}.partial_image`, partial_image_index: i, b64_json: PIXEL },
        { type: `${kind}.completed`, b64_json: PIXEL, usage: IMAGE_USAGE },
    ]).flat();

function generations(rec) {
    const b = rec.json;
    checkMembers(b, {
        '!model': is.filled, '!prompt': is.filled, n: is.integer, size: is.filled, quality: is.filled, background: is.filled, style: is.filled, moderation: is.filled,
        output_format: is.filled, output_compression: is.integer, response_format: is.oneOf('url', 'b64_json'), user: is.string, stream: is.boolean, partial_images: is.integer,
    });
    if (b.stream) return sse(...pictureEvents('image_generation', b.n ?? 1));
    const one = b.response_format === 'url' ? { url: 'https://files.example/p.png', revised_prompt: 'a dot' } : { b64_json: PIXEL };
    return json({ created: 1_790_000_000, data: Array.from({ length: b.n ?? 1 }, () => one), ...(b.response_format !== 'url' && { usage: IMAGE_USAGE }) });
}

function edits(rec) {
    rec.form = parseForm(rec.headers['content-type'], rec.body);
    checkForm(rec.form, { ...IMAGE_FIELDS, '!model': is.filled, '!prompt': is.filled, '!image': 'file', 'image[]': 'file', mask: 'file', stream: is.oneOf('true', 'false'), partial_images: numeric });
    if (rec.form.some((p) => p.name === 'stream' && p.bytes.toString() === 'true')) return sse(...pictureEvents('image_edit', 1));
    return json({ created: 1_790_000_000, data: [{ b64_json: PIXEL }], usage: IMAGE_USAGE });
}

function variations(rec) {
    rec.form = parseForm(rec.headers['content-type'], rec.body);
    checkForm(rec.form, { ...IMAGE_FIELDS, model: is.filled, '!image': 'file' });
    return json({ created: 1_790_000_000, data: [{ url: 'https://files.example/v.png' }] });
}

function speech(rec) {
    checkMembers(rec.json, {
        '!model': is.filled, '!input': (v) => is.filled(v) && v.length <= 4096, '!voice': is.either(is.filled, is.object), instructions: is.string, speed: is.number,
        response_format: is.oneOf('mp3', 'opus', 'aac', 'flac', 'wav', 'pcm'), stream_format: is.oneOf('audio', 'sse'),
    });
    if (rec.json.stream_format === 'sse')
        return sse(
            { type: 'speech.audio.delta', audio: SOUND.subarray(0, 30).toString('base64') },
            { type: 'speech.audio.done', usage: { input_tokens: 4, output_tokens: 90, total_tokens: 94 } },
        );
    return { status: 200, type: rec.json.response_format === 'wav' ? 'audio/wav' : 'audio/mpeg', body: SOUND, chunked: true };
}

const SRT = '1\n00:00:00,000 --> 00:00:01,000\nGrüße\n\n';

function heard(rec, extra) {
    rec.form = parseForm(rec.headers['content-type'], rec.body);
    checkForm(rec.form, {
        '!model': is.filled, '!file': 'file', prompt: is.string, temperature: numeric,
        response_format: is.oneOf('json', 'text', 'srt', 'verbose_json', 'vtt', 'diarized_json'), ...extra,
    });
    const field = (name) => rec.form.find((p) => p.name === name)?.bytes.toString();
    const file = rec.form.find((p) => p.name === 'file');
    if (!/\.(flac|mp3|mp4|mpeg|mpga|m4a|ogg|wav|webm)$/.test(file.filename)) refuse('Unrecognized file format.', 'file');
    if (field('stream') === 'true')
        return sse(
            { type: 'transcript.text.delta', delta: 'Grü' }, { type: 'transcript.text.delta', delta: 'ße' },
            { type: 'transcript.text.done', text: 'Grüße', usage: { type: 'tokens', input_tokens: 14, output_tokens: 5, total_tokens: 19, input_token_details: { text_tokens: 0, audio_tokens: 14 } } },
        );
    switch (field('response_format') ?? 'json') {
        case 'text':
            return { status: 200, type: 'text/plain; charset=utf-8', body: Buffer.from('Grüße\n') };
        case 'srt':
        case 'vtt':
            return { status: 200, type: 'text/plain; charset=utf-8', body: Buffer.from(SRT) };
        case 'verbose_json':
            return json({ task: 'transcribe', language: 'german', duration: 1.0, text: 'Grüße', segments: [], usage: { type: 'duration', seconds: 1 } });
        default:
            return json({ text: 'Grüße', usage: { type: 'tokens', input_tokens: 14, output_tokens: 5, total_tokens: 19 } });
    }
}

const transcriptions = (rec) => heard(rec, {
    language: is.filled, stream: is.oneOf('true', 'false'), 'timestamp_granularities[]': is.oneOf('word', 'segment'), 'include[]': is.filled, chunking_strategy: is.filled,
});
const translations = (rec) => heard(rec, {});

// ---- what is only passed on -------------------------------------------------------------------------------------

/** Objects by the credential that made them, as with the real service. */
class Objects {
    constructor() {
        this.files = new Map();
        this.serial = 0;
    }

    file(rec, id) {
        const file = this.files.get(id);
        if (!file || file.key !== rec.key) throw new Refusal(404, `No such File object: ${id}`, { param: 'id' });
        return file;
    }

    upload(rec) {
        rec.form = parseForm(rec.headers['content-type'], rec.body);
        checkForm(rec.form, { '!file': 'file', '!purpose': is.filled, 'expires_after[anchor]': is.filled, 'expires_after[seconds]': numeric });
        const part = rec.form.find((p) => p.name === 'file');
        const object = { id: `file-${++this.serial}`, object: 'file', bytes: part.bytes.length, created_at: 1_790_000_000, filename: part.filename, purpose: 'batch', status: 'processed' };
        this.files.set(object.id, { key: rec.key, object, bytes: Buffer.from(part.bytes) });
        return json(object);
    }

    serve(rec, path, query) {
        const [, kind, id, what] = path.split('/');
        if (path === '/files' && rec.method === 'POST') return this.upload(rec);
        if (path === '/files' && rec.method === 'GET')
            return json({ object: 'list', data: [...this.files.values()].filter((f) => f.key === rec.key).map((f) => f.object), has_more: false, query });
        if (kind === 'files' && what === 'content') {
            const bytes = this.file(rec, id).bytes;
            return { status: 200, type: 'application/octet-stream', body: bytes, headers: { 'content-disposition': 'attachment; filename="x"', 'set-cookie': 'a=b' } };
        }
        if (kind === 'files' && id && rec.method === 'GET') return json(this.file(rec, id).object);
        if (kind === 'files' && id && rec.method === 'DELETE') {
            this.file(rec, id);
            this.files.delete(id);
            return json({ id, object: 'file', deleted: true });
        }
        if (path === '/batches' && rec.method === 'POST') {
            checkMembers(rec.json, { '!input_file_id': is.filled, '!endpoint': is.filled, '!completion_window': is.oneOf('24h'), metadata: is.object });
            return json({ id: 'batch_1', object: 'batch', ...rec.json, status: 'validating' });
        }
        if (path === '/vector_stores/vs_1' && rec.method === 'POST') return json({ id: 'vs_1', object: 'vector_store', ...rec.json });
        if (path === '/fine_tuning/jobs' && rec.method === 'POST') return json({ id: 'ftjob-1', object: 'fine_tuning.job', ...rec.json });
        if (path === '/nothing') return { status: 204, type: null, body: Buffer.alloc(0) };
        throw new Refusal(404, `Invalid URL (${rec.method} /v1${path})`);
    }
}

// ---- the server -----------------------------------------------------------------------------------------------

const ROUTES = {
    '/completions': completions,
    '/embeddings': embeddings,
    '/moderations': moderations,
    '/images/generations': generations,
    '/images/edits': edits,
    '/images/variations': variations,
    '/audio/speech': speech,
    '/audio/transcriptions': transcriptions,
    '/audio/translations': translations,
};

const HEADERS = ['host', 'connection', 'user-agent', 'accept', 'accept-encoding', 'authorization', 'content-type', 'content-length', 'openai-beta', 'idempotency-key'];

class FakeApi {
    constructor({ keys }) {
        this.keys = keys;
        this.requests = [];
        this.refusals = [];
        this.byKey = new Map();
        this.objects = new Objects();
        this.server = http.createServer({ requestTimeout: 0 }, (req, res) => this.serve(req, res));
        this.server.on('connection', (socket) => socket.on('error', () => {}));
    }

    get base() {
        return `http://127.0.0.1:${this.port}/v1`;
    }

    get last() {
        return this.requests.at(-1);
    }

    /** Instead of the answer: {status, type, body, headers}, or a function of the request that gives one, or 'cut'. */
    key(key, behave) {
        this.byKey.set(key, behave);
    }

    checkHead(rec) {
        for (const name of LEAKING_HEADERS) if (name in rec.headers) throw new Refusal(400, `leak: the header ${name} came through`);
        for (const name of Object.keys(rec.headers)) if (!HEADERS.includes(name)) throw new Refusal(400, `the header ${name} does not belong here`);
        if (rec.url.includes(CLIENT_KEY) || JSON.stringify(rec.headers).includes(CLIENT_KEY)) throw new Refusal(400, 'leak: the client’s key');
        const bearer = /^Bearer (\S+)$/.exec(rec.headers.authorization ?? '');
        if (!bearer || !this.keys.includes(bearer[1])) throw new Refusal(401, 'Incorrect API key provided.', { code: 'invalid_api_key' });
        rec.key = bearer[1];
        if (!rec.url.startsWith('/v1/')) throw new Refusal(404, `Invalid URL (${rec.method} ${rec.url})`);
    }

    answerTo(rec) {
        const [path, query] = rec.url.slice(3).split('?');
        if (/^application\/json/.test(rec.headers['content-type'] ?? '') && rec.body.length > 0) rec.json = JSON.parse(rec.body.toString('utf8'));
        const behave = this.byKey.get(rec.key);
        if (behave) return typeof behave === 'function' ? behave(rec) : behave;
        if (!ROUTES[path]) return this.objects.serve(rec, path, query);
        if (rec.method !== 'POST') throw new Refusal(405, `Not allowed to ${rec.method} on ${path}`);
        if (query !== undefined) throw new Refusal(400, `unexpected query ?${query}`);
        if (!/^multipart\//.test(rec.headers['content-type']) && !rec.json) throw new Refusal(415, `Unsupported content type: ${rec.headers['content-type']}`);
        return ROUTES[path](rec);
    }

    async serve(req, res) {
        const rec = { method: req.method, url: req.url, headers: req.headers, body: Buffer.alloc(0), json: null, key: null };
        this.requests.push(rec);
        try {
            const pieces = [];
            for await (const piece of req) pieces.push(piece);
            rec.body = Buffer.concat(pieces);
            this.checkHead(rec);
            this.send(res, await this.answerTo(rec));
        } catch (error) {
            if (!(error instanceof Refusal)) throw error;
            this.refusals.push({ status: error.status, message: error.message });
            this.send(res, { status: error.status, type: 'application/json', body: Buffer.from(errorBody(error.message, error.fields)) });
        }
    }

    send(res, answer) {
        if (answer === 'cut') return void res.socket.destroy();
        res.writeHead(answer.status, {
            ...(answer.type && { 'content-type': answer.type }),
            ...(!answer.chunked && answer.status !== 204 && !answer.cut && { 'content-length': answer.body.length }),
            'openai-processing-ms': '7',
            ...answer.headers,
        });
        if (answer.cut) return void res.write(answer.body, () => res.socket.destroy());
        res.end(answer.body);
    }

    listen() {
        return new Promise((done) => this.server.listen(0, '127.0.0.1', () => done((this.port = this.server.address().port))));
    }
}

/** strict: false: refusals do not fail the test. */
export async function startFakeApi(t, options = {}) {
    const fake = new FakeApi({ keys: ['sk-up-1', 'sk-up-2'], ...options });
    await fake.listen();
    atEnd(t, async () => {
        fake.server.closeAllConnections();
        await new Promise((done) => fake.server.close(done));
        if (options.strict !== false && fake.refusals.length > 0) throw new Error(`the fake API refused: ${JSON.stringify(fake.refusals)}`);
    });
    return fake;
}
