// A strict hix.ai: create a chat (tRPC batch), ask in it, read the answer as SSE in either of its two framings.
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLIENT_KEY, atEnd } from './gateway.mjs';

// Model name -> bot id, with the character limit of a question.
export const BOTS = {
    'deepseek-r1': [85426, 8000],
    'deepseek-v3': [85427, 8000],
    'gpt-4o': [5, 8000],
    'gpt-4o-mini': [86, 8000],
    'claude-3-5-haiku-200k': [85423, 100_000],
    'claude-3-7-sonnet': [85429, 8000],
};

/** A session cookie value of the right shape: JWE compact form with an empty second part. */
export function sessionToken(seed) {
    const header = Buffer.from('{"alg":"dir","enc":"A256GCM"}').toString('base64url');
    const part = (n) => (seed.repeat(n) + 'A'.repeat(n)).slice(0, n);
    return `${header}..${part(16)}.${part(60)}.${part(22)}`;
}

const SESSION = '__Secure-next-auth.session-token';

class Refusal extends Error {
    constructor(status, what, body) {
        super(what);
        this.status = status;
        this.body = body ?? { message: what };
    }
}

/** tRPC's error shape for a batch of one. */
function trpcError(code, name, httpStatus, path, message = name) {
    return [{ error: { json: { message, code, data: { code: name, httpStatus, path, appName: 'HIXChat' } } } }];
}

const unauthorized = (path) => new Refusal(401, 'wrong cookie', trpcError(-32001, 'UNAUTHORIZED', 401, path));
const malformed = (what) => new Refusal(400, what);

const CHROME = /^Mozilla\/5\.0 \([^)]+\) AppleWebKit\/537\.36 \(KHTML, like Gecko\) Chrome\/\d+(\.\d+){3} Safari\/537\.36$/;

const CHAT_MEMBERS = {
    chatId: 'string',
    fileUrl: 'string',
    question: 'string',
    search: 'boolean',
    searchType: 'string',
    markdown: 'boolean',
};

/** Behaviours of a chat call: async (rec) => void. Payloads are written in the framing of the fake. */
export const say = {
    /** Reasoning, then the text, then [DONE]. */
    answer({ pieces = ['Blue'], reasoning = [], gapMs = 0 } = {}) {
        return async (rec) => {
            const w = rec.openStream();
            for (const piece of reasoning) await w.event({ reasoning_content: piece });
            if (reasoning.length > 0) await w.event({ thinking_time: 1 });
            for (const piece of pieces) {
                if (!(await w.event({ content: piece }))) return;
                if (gapMs > 0) await sleep(gapMs);
            }
            w.done();
        };
    },

    /** Piece n+1 only after confirm() for piece n. */
    lockstep(pieces) {
        let release = () => {};
        let tickets = 0;
        const behave = async (rec) => {
            const w = rec.openStream();
            for (const piece of pieces) {
                await w.event({ content: piece });
                while (tickets === 0 && !rec.isGone) await Promise.race([new Promise((done) => (release = done)), rec.gone]);
                if (rec.isGone) return;
                tickets--;
            }
            w.done();
        };
        return Object.assign(behave, { confirm: () => (tickets++, release()) });
    },

    /** Pieces and then the end of the stream without [DONE]. */
    cut(pieces = ['half ']) {
        return async (rec) => {
            const w = rec.openStream();
            for (const piece of pieces) await w.event({ content: piece });
            rec.res.end();
        };
    },

    hang() {
        return async (rec) => {
            await rec.openStream().event({ thinking_time: 0 });
        };
    },

    status(code, body, headers = {}) {
        return (rec) => {
            rec.res.writeHead(code, { 'content-type': 'application/json', ...headers });
            rec.res.end(typeof body === 'string' ? body : JSON.stringify(body));
        };
    },

    trpc(code, name, httpStatus) {
        return (rec) => say.status(httpStatus, trpcError(code, name, httpStatus, 'hixChat.createChat'))(rec);
    },

    challenge() {
        return say.status(403, '<!DOCTYPE html><html><head><title>Just a moment...</title></head><body><script>window._cf_chl_opt={}</script></body></html>', {
            'content-type': 'text/html; charset=UTF-8',
        });
    },
};

class StreamWriter {
    constructor(rec, framing, split) {
        Object.assign(this, { rec, framing, split, id: 0 });
    }

    async write(text) {
        const { res } = this.rec;
        if (res.destroyed) return false;
        const bytes = Buffer.from(text);
        for (let i = 0; i < bytes.length; i += this.split) {
            res.write(bytes.subarray(i, i + this.split));
            if (this.split < bytes.length) await sleep(1);
        }
        return !this.rec.isGone;
    }

    event(payload, name = null) {
        const data = `data: ${JSON.stringify(payload)}\n\n`;
        if (this.framing === 'data') return this.write(data);
        return this.write(`id: 1716-${this.id++}\n${name === null ? '' : `event: ${name}\n`}${data}`);
    }

    done() {
        this.rec.res.end('data: [DONE]\n\n');
    }
}

class FakeHix {
    constructor({ sessions, framing = 'data', split = Infinity }) {
        Object.assign(this, { sessions, framing, split });
        this.forbidden = [CLIENT_KEY];
        this.requests = []; // every request, as recorded
        this.refusals = [];
        this.chats = new Map(); // id -> {session, botId}
        this.createBehaviour = null;
        this.inOrder = [];
        this.fallback = say.answer();
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

    /** The next chat calls play these; afterwards `always`. */
    next(...behaviours) {
        this.inOrder.push(...behaviours);
    }

    always(behave) {
        this.fallback = behave;
    }

    /** createChat plays this instead of creating; null: create. A function of the session may choose. */
    onCreate(choose) {
        this.createBehaviour = choose;
    }

    of(path) {
        return this.requests.filter((rec) => rec.path === path);
    }

    session(headers, path) {
        const names = [];
        let session = null;
        for (const pair of (headers.cookie ?? '').split('; ')) {
            const at = pair.indexOf('=');
            names.push(pair.slice(0, at));
            if (pair.slice(0, at) === SESSION) session = pair.slice(at + 1);
        }
        if (session === null || !this.sessions.includes(session)) throw unauthorized(path);
        if (names.filter((n) => n === SESSION).length > 1) throw malformed('two session cookies');
        return session;
    }

    /** The site's own origin; a gateway pointed at another base URL may name that instead, in both headers alike. */
    checkOrigin(headers, refererPath) {
        const { origin, referer } = headers;
        if (origin !== 'https://hix.ai' && origin !== this.base) throw malformed(`Origin: ${origin}`);
        if (!refererPath.some((path) => referer === `${origin}${path}`)) throw malformed(`Referer: ${referer}, expected one of ${refererPath.map((p) => origin + p)}`);
    }

    checkCommon(rec, accept) {
        const { headers } = rec;
        for (const text of this.forbidden)
            if (rec.url.includes(text) || rec.rawHeaders.some((h) => h.includes(text)) || rec.text.includes(text)) throw malformed(`leak: ${text}`);
        for (const name of ['authorization', 'expect', 'x-api-key', 'x-forwarded-for', 'forwarded', 'via', 'proxy-authorization', 'te', 'x-request-id'])
            if (name in headers) throw malformed(`leak: the header ${name} came through`);
        if (headers.host !== `127.0.0.1:${this.port}`) throw malformed(`Host: ${headers.host}`);
        if (headers['content-type'] !== 'application/json') throw malformed(`Content-Type: ${headers['content-type']}`);
        if (headers.accept !== accept) throw malformed(`Accept: ${headers.accept}`);
        if (!CHROME.test(headers['user-agent'] ?? '')) throw malformed(`User-Agent: ${headers['user-agent']}`);
    }

    parse(rec) {
        try {
            rec.json = JSON.parse(rec.text);
        } catch {
            throw new Refusal(400, 'not JSON', trpcError(-32700, 'PARSE_ERROR', 400, rec.path));
        }
    }

    /** The argument of a one-procedure tRPC mutation; exactly these members. */
    trpcArgument(rec, members) {
        if (rec.query !== 'batch=1') throw malformed(`query: ${rec.query}`);
        this.parse(rec);
        const { json } = rec;
        if (Object.keys(json).join() !== '0' || Object.keys(json[0]).join() !== 'json') throw malformed('not a batch of one');
        const argument = json[0].json;
        if (Object.keys(argument).sort().join() !== Object.keys(members).sort().join()) throw malformed(`members: ${Object.keys(argument)}`);
        for (const [name, type] of Object.entries(members)) if (typeof argument[name] !== type) throw malformed(`${name} is not a ${type}`);
        return argument;
    }

    async createChat(rec) {
        this.checkCommon(rec, 'application/json');
        this.checkOrigin(rec.headers, ['/']);
        const session = (rec.session = this.session(rec.headers, 'hixChat.createChat'));
        const { title, botId } = this.trpcArgument(rec, { title: 'string', botId: 'number' });
        if (title === '') throw malformed('empty title');
        if (!Object.values(BOTS).some(([id]) => id === botId)) throw new Refusal(404, `no bot ${botId}`, trpcError(-32004, 'NOT_FOUND', 404, 'hixChat.createChat'));
        const behave = this.createBehaviour?.(session);
        if (behave) return behave(rec);
        const id = `chat-${this.chats.size + 1}-${session.slice(-4)}`;
        this.chats.set(id, { session, botId });
        say.status(200, [{ result: { data: { json: { id, title } } } }])(rec);
    }

    async chat(rec) {
        this.checkCommon(rec, 'text/event-stream');
        const session = (rec.session = this.session(rec.headers, 'chat'));
        if (rec.query !== undefined) throw malformed(`query: ${rec.query}`);
        this.parse(rec);
        const { json } = rec;
        for (const [name, value] of Object.entries(json)) {
            if (!Object.hasOwn(CHAT_MEMBERS, name)) throw malformed(`unknown member ${name}`);
            if (typeof value !== CHAT_MEMBERS[name]) throw malformed(`${name} is not a ${CHAT_MEMBERS[name]}`);
        }
        for (const name of ['chatId', 'fileUrl', 'question']) if (!(name in json)) throw new Refusal(400, `no ${name}`, { code: 'MISSING_PARAMETER', message: name });
        if (('search' in json) !== ('searchType' in json)) throw malformed('search and searchType come together');
        if ('searchType' in json && !['internet', 'news', 'academic'].includes(json.searchType)) throw malformed(`searchType ${json.searchType}`);
        if (json.question === '') throw new Refusal(400, 'empty question', { code: 'MISSING_PARAMETER', message: 'question' });
        const chat = this.chats.get(json.chatId);
        if (!chat || chat.session !== session) throw new Refusal(403, `chat ${json.chatId} is not of this account`);
        const names = Object.keys(BOTS).filter((name) => BOTS[name][0] === chat.botId);
        this.checkOrigin(rec.headers, names.map((name) => `/${name}?/id=${json.chatId}`));
        if ([...json.question].length > BOTS[names[0]][1]) throw malformed('the question is too long');
        const behave = this.inOrder.shift() ?? this.fallback;
        await behave(rec);
    }

    deleteChat(rec) {
        this.checkCommon(rec, 'application/json');
        this.checkOrigin(rec.headers, ['/']);
        const session = (rec.session = this.session(rec.headers, 'hixChat.deleteChat'));
        const { id } = this.trpcArgument(rec, { id: 'string' });
        if (this.chats.get(id)?.session !== session) throw new Refusal(404, `no chat ${id}`, trpcError(-32004, 'NOT_FOUND', 404, 'hixChat.deleteChat'));
        this.chats.delete(id);
        say.status(200, [{ result: { data: { json: null } } }])(rec);
    }

    async serve(req, res) {
        const [path, query] = req.url.split('?');
        const rec = { req, res, method: req.method, url: req.url, path, query, headers: req.headers, rawHeaders: req.rawHeaders, text: '', json: null, session: null, at: performance.now(), isGone: false, goneAt: null };
        rec.gone = new Promise((done) => {
            res.on('close', () => {
                if (!res.writableFinished) (rec.isGone = true), (rec.goneAt = performance.now());
                done();
            });
        });
        rec.openStream = () => {
            res.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' });
            res.flushHeaders();
            return new StreamWriter(rec, this.framing, this.split);
        };
        try {
            const pieces = [];
            for await (const piece of req) pieces.push(piece);
            rec.text = Buffer.concat(pieces).toString('utf8');
            this.requests.push(rec);
            const routes = {
                '/api/trpc/hixChat.createChat': this.createChat,
                '/api/trpc/hixChat.deleteChat': this.deleteChat,
                '/api/hix/chat': this.chat,
            };
            if (!Object.hasOwn(routes, path)) throw new Refusal(404, `no route ${path}`);
            if (req.method !== 'POST') throw new Refusal(405, `${req.method} ${path}`, trpcError(-32005, 'METHOD_NOT_SUPPORTED', 405, path));
            await routes[path].call(this, rec);
        } catch (error) {
            if (!(error instanceof Refusal)) {
                if (req.socket.destroyed) return;
                throw error;
            }
            this.refusals.push({ status: error.status, what: error.message });
            res.writeHead(error.status, { 'content-type': 'application/json' });
            res.end(JSON.stringify(error.body));
        }
    }

    close() {
        for (const socket of this.sockets) socket.destroy();
        return new Promise((done) => this.server.close(done));
    }
}

/** options: sessions (valid cookie values), framing ('data' or 'events'), split (bytes per packet), strict (false: refusals do not fail the test). */
export async function startFakeHix(t, options = {}) {
    const fake = new FakeHix({ sessions: [sessionToken('hixOne'), sessionToken('hixTwo')], ...options });
    await new Promise((done) => fake.server.listen(0, '127.0.0.1', done));
    fake.port = fake.server.address().port;
    atEnd(t, async () => {
        await fake.close();
        if (options.strict !== false && fake.refusals.length > 0) throw new Error(`the fake hix refused: ${JSON.stringify(fake.refusals)}`);
    });
    return fake;
}
