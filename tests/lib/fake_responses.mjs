// A strict server that speaks the Responses API itself, written from the protocol notes: it keeps responses by the credential that made them, answers in an
// odd spelling that a relay must not change, and refuses one wrong header or member.
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
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

const string = (v) => typeof v === 'string';
const object = (v) => typeof v === 'object' && v !== null && !Array.isArray(v);
const either = (...checks) => (v) => checks.some((check) => check(v));
const MEMBERS = {
    model: string, input: either(string, Array.isArray), instructions: string, previous_response_id: string, store: (v) => typeof v === 'boolean', stream: (v) => typeof v === 'boolean',
    tools: Array.isArray, tool_choice: either(string, object), parallel_tool_calls: (v) => typeof v === 'boolean', max_output_tokens: (v) => Number.isInteger(v) && v >= 16, temperature: (v) => v >= 0 && v <= 2,
    top_p: (v) => v >= 0 && v <= 1, text: object, reasoning: object, include: Array.isArray, truncation: string, metadata: object, user: string, service_tier: string, prompt_cache_key: string,
};

const USAGE = { input_tokens: 13, input_tokens_details: { cached_tokens: 3 }, output_tokens: 9, output_tokens_details: { reasoning_tokens: 4 }, total_tokens: 22 };

/** JSON as no serializer of ours would write it: a relay must leave it alone. */
const odd = (v) => JSON.stringify(v).replace(/"created_at":(\d+)/, '"created_at" : $1.0e0').replace(/é/g, '\\u00e9');

export const play = {
    /** A good answer, streamed or not. */
    ok({ text = 'Héllo.', pieces = text.match(/.{1,3}/gsu), status = 'completed', items = null, gapMs = 0 } = {}) {
        return async (rec) => {
            const response = rec.fake.make(rec, status, items ?? [message(pieces.join(''))]);
            if (!rec.json.stream) return rec.fake.json(rec, response);
            await rec.fake.events(rec, [...begin(response), ...eventsOf(response, pieces), end(response)], gapMs);
            rec.res.end();
        };
    },
    /** With reasoning that only this account can read. */
    sealed() {
        return (rec) => {
            const thought = { id: `rs_up${rec.fake.serial}`, type: 'reasoning', summary: [], encrypted_content: `sealed for ${rec.key}` };
            return play.ok({ items: [thought, message('Héllo.')] })(rec);
        };
    },
    /** Breaks off behind `n` events. */
    cutAfter(n) {
        return async (rec) => {
            const response = rec.fake.make(rec, 'completed', [message('one two')]);
            await rec.fake.events(rec, [...begin(response), ...eventsOf(response, ['one ', 'two']), end(response)].slice(0, n));
            rec.res.end();
        };
    },
    /** The events before one of a phase, and then what `fault` does: phase is 'after headers', 'before the first token', 'mid-stream' or 'at the end'. */
    fault(phase, fault) {
        return async (rec) => {
            const response = rec.fake.make(rec, 'completed', [message('one two')]);
            const all = [...begin(response), ...eventsOf(response, ['one ', 'two']), end(response)];
            await rec.fake.events(rec, all.slice(0, { 'after headers': 0, 'before the first token': 4, 'mid-stream': 6, 'at the end': all.length - 1 }[phase]));
            rec.res.flushHeaders();
            await sleep(30);
            fault(rec);
        };
    },
    /** Fails behind the text, or before it, in its own words: an event, response.failed, or both. */
    failed({ code = 'server_error', message: words = 'The model broke.', after = 0, how = 'both' } = {}) {
        return async (rec) => {
            const response = rec.fake.make(rec, 'completed', [message('one two')]);
            const failed = { ...response, status: 'failed', output: [], usage: null, error: { code, message: words } };
            if (!rec.json.stream) return rec.fake.json(rec, failed);
            const tail = [{ type: 'error', code, message: words, param: null }, { type: 'response.failed', response: failed }];
            await rec.fake.events(rec, [...begin(response), ...eventsOf(response, ['one ', 'two']).slice(0, after), ...(how === 'both' ? tail : how === 'event' ? tail.slice(0, 1) : tail.slice(1))]);
            rec.res.end();
        };
    },
    error: (status, words, fields) => (rec) => rec.fake.send(rec, status, errorBody(words, fields), { ...(status === 429 && { 'retry-after': '7' }) }),
};

const message = (text) => ({ id: 'msg_1', type: 'message', status: 'completed', role: 'assistant', content: [{ type: 'output_text', annotations: [], logprobs: [], text }] });
const bare = (response) => ({ ...response, status: 'in_progress', output: [], usage: null });
const begin = (response) => [{ type: 'response.created', response: bare(response) }, { type: 'response.in_progress', response: bare(response) }];
const end = (response) => ({ type: `response.${response.status}`, response });

function eventsOf(response, pieces) {
    return response.output.flatMap((item, output_index) => {
        const at = { output_index, item_id: item.id };
        if (item.type === 'reasoning') return ['added', 'done'].map((what) => ({ type: `response.output_item.${what}`, output_index, item: { ...item, ...(what === 'added' && { encrypted_content: '' }) } }));
        if (item.type !== 'message')
            return [{ type: 'response.output_item.added', output_index, item: { ...item, arguments: '' } }, { type: 'response.function_call_arguments.delta', ...at, delta: item.arguments }, { type: 'response.function_call_arguments.done', ...at, arguments: item.arguments }, { type: 'response.output_item.done', output_index, item }];
        const part = { type: 'output_text', annotations: [], logprobs: [], text: '' }, text = pieces.join('');
        const here = { ...at, content_index: 0 };
        return [
            { type: 'response.output_item.added', output_index, item: { ...item, status: 'in_progress', content: [] } },
            { type: 'response.content_part.added', ...here, part },
            ...pieces.map((delta) => ({ type: 'response.output_text.delta', ...here, delta, logprobs: [], obfuscation: 'xYz' })),
            { type: 'response.output_text.done', ...here, text, logprobs: [] },
            { type: 'response.content_part.done', ...here, part: { ...part, text } },
            { type: 'response.output_item.done', output_index, item },
        ];
    });
}

class FakeResponses {
    constructor({ keys }) {
        this.keys = keys;
        this.requests = [];
        this.refusals = [];
        this.kept = new Map();
        this.queue = [];
        this.byKey = new Map();
        this.behave = play.ok();
        this.serial = 0;
        this.server = http.createServer((req, res) => this.serve(req, res));
    }

    get base() {
        return `http://127.0.0.1:${this.port}/v1`;
    }

    get last() {
        return this.requests.at(-1);
    }

    next(...behaviours) {
        this.queue.push(...behaviours);
    }

    /** A new response of this credential; kept, unless it is not to be. */
    make(rec, status, output) {
        const response = {
            id: `resp_up${++this.serial}`, object: 'response', created_at: 1_790_000_000, status, error: null, incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null, model: rec.json.model,
            output, previous_response_id: rec.json.previous_response_id ?? null, store: rec.json.store ?? true, usage: USAGE, unknown_member: { kept: true },
        };
        if (response.store) this.kept.set(response.id, { key: rec.key, response, input: rec.json.input });
        return response;
    }

    find(rec, id) {
        const found = this.kept.get(id);
        if (!found || found.key !== rec.key) throw new Refusal(404, `Response with id '${id}' not found.`);
        return found;
    }

    create(rec) {
        const b = rec.json;
        if (!object(b)) refuse('the body is no object');
        for (const [name, value] of Object.entries(b)) if (!MEMBERS[name]?.(value)) refuse(`wrong member '${name}'`, name);
        for (const name of ['model', 'input']) if (!(name in b)) refuse(`Missing required parameter: '${name}'.`, name);
        if (b.previous_response_id && this.kept.get(b.previous_response_id)?.key !== rec.key)
            throw new Refusal(400, `Previous response with id '${b.previous_response_id}' not found.`, { param: 'previous_response_id', code: 'previous_response_not_found' });
        for (const item of Array.isArray(b.input) ? b.input : [])
            if (item.encrypted_content && item.encrypted_content !== `sealed for ${rec.key}`) throw new Refusal(400, 'The encrypted content could not be verified.', { code: 'invalid_encrypted_content' });
        return (this.queue.shift() ?? this.byKey.get(rec.key) ?? this.behave)(rec);
    }

    count(rec) {
        for (const [name, value] of Object.entries(rec.json)) if (!MEMBERS[name]?.(value) || name === 'stream' || name === 'store') refuse(`wrong member '${name}'`, name);
        return this.json(rec, { object: 'response.input_tokens', input_tokens: 4711 });
    }

    one(rec, id, tail, query) {
        const found = this.find(rec, id);
        if (rec.method === 'GET' && tail === '') return this.json(rec, found.response);
        if (rec.method === 'GET' && tail === 'input_items') return this.json(rec, { object: 'list', data: [{ id: 'msg_in', type: 'message', role: 'user', content: [{ type: 'input_text', text: found.input }] }], first_id: 'msg_in', last_id: 'msg_in', has_more: false, query });
        if (rec.method === 'POST' && tail === 'cancel') throw new Refusal(400, 'Cannot cancel a synchronous response.');
        if (rec.method !== 'DELETE' || tail !== '') throw new Refusal(405, `Not allowed to ${rec.method} on ${rec.url}`);
        this.kept.delete(id);
        return this.json(rec, { id, object: 'response', deleted: true });
    }

    json(rec, value) {
        this.send(rec, 200, odd(value));
    }

    send(rec, status, body, headers = {}) {
        rec.said = body;
        rec.res.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...headers });
        rec.res.end(body);
    }

    async events(rec, events, gapMs = 0) {
        rec.res.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
        rec.said = '';
        for (const [i, e] of events.entries()) {
            const block = `event: ${e.type}\ndata: ${odd({ ...e, sequence_number: i })}\n\n`;
            rec.said += block;
            rec.res.write(block);
            if (gapMs > 0) await sleep(gapMs);
        }
    }

    check(rec) {
        for (const name of LEAKING_HEADERS) if (name in rec.headers) refuse(`the header ${name} leaks`);
        if (JSON.stringify(rec.headers).includes(CLIENT_KEY)) refuse('the key of the client leaks');
        rec.key = /^Bearer (\S+)$/.exec(rec.headers.authorization ?? '')?.[1];
        if (!this.keys.includes(rec.key)) throw new Refusal(401, 'Incorrect API key provided.', { code: 'invalid_api_key' });
        if (rec.method === 'POST' && rec.body.length > 0) {
            if (rec.headers['content-type'] !== 'application/json') refuse(`content type ${rec.headers['content-type']}`);
            rec.json = JSON.parse(rec.body.toString('utf8'));
        }
    }

    async serve(req, res) {
        const rec = { fake: this, method: req.method, url: req.url, headers: req.headers, res, json: null };
        this.requests.push(rec);
        try {
            const pieces = [];
            for await (const piece of req) pieces.push(piece);
            rec.body = Buffer.concat(pieces);
            this.check(rec);
            const [path, query] = rec.url.split('?');
            const [, version, root, id, tail = ''] = path.split('/');
            if (version !== 'v1' || root !== 'responses') throw new Refusal(404, `Invalid URL (${rec.method} ${rec.url})`);
            if (id === 'input_tokens' && rec.method === 'POST') this.count(rec);
            else if (id) this.one(rec, id, tail, query);
            else if (rec.method === 'POST') await this.create(rec);
            else throw new Refusal(405, `Not allowed to ${rec.method}`);
        } catch (error) {
            if (!(error instanceof Refusal)) throw error;
            this.refusals.push({ status: error.status, message: error.message, url: rec.url });
            this.send(rec, error.status, errorBody(error.message, error.fields));
        }
    }
}

/** strict: false: refusals do not fail the test. */
export async function startFakeResponses(t, { strict = true, ...options } = {}) {
    const fake = new FakeResponses({ keys: ['sk-up-1', 'sk-up-2'], ...options });
    await new Promise((done) => fake.server.listen(0, '127.0.0.1', done));
    fake.port = fake.server.address().port;
    atEnd(t, async () => {
        fake.server.closeAllConnections();
        await new Promise((done) => fake.server.close(done));
        if (strict && fake.refusals.length > 0) throw new Error(`the fake refused: ${JSON.stringify(fake.refusals)}`);
    });
    return fake;
}
