// A strict hix.ai: create a chat (tRPC batch), ask in it, read the answer as SSE in either of its two framings, ask for its rest, delete the chat;
// files through a store; the session and the credit of each account, from which answers are paid.
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLIENT_KEY, atEnd } from './gateway.mjs';

// Model name -> bot id, the character limit of a question, its price, from which kind of credit.
export const BOTS = {
    'deepseek-r1': [85426, 8000, 1, 'standard'],
    'deepseek-v3': [85427, 8000, 1, 'standard'],
    'gpt-4o': [5, 8000, 30, 'standard'],
    'gpt-4o-mini': [86, 8000, 4, 'standard'],
    'claude-3-5-haiku-200k': [85423, 100_000, 4, 'standard'],
    'claude-3-7-sonnet': [85429, 8000, 20, 'advanced'],
    'grok-2': [85428, 8000, 100, 'standard'],
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
function trpcError(code, name, httpStatus, path, more = {}) {
    return [{ error: { json: { message: name, code, data: { code: name, httpStatus, path, ...more } } } }];
}

const USAGE_INPUT = { 0: { json: { limit: 1000 } }, 1: { json: null, meta: { values: ['undefined'] } }, 2: { json: { appName: 'HIXChat' } } };

// What a file must begin with, by its type.
const FILES = {
    'image/png': ['.png', (b) => b.subarray(0, 8).equals(Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]))],
    'image/jpeg': ['.jpg', (b) => b[0] === 0xff && b[1] === 0xd8 && b[2] === 0xff],
    'image/webp': ['.webp', (b) => b.toString('latin1', 0, 4) === 'RIFF' && b.toString('latin1', 8, 12) === 'WEBP'],
    'application/pdf': ['.pdf', (b) => b.toString('latin1', 0, 4) === '%PDF'],
    'application/msword': ['.doc', (b) => b.readUInt32BE(0) === 0xd0cf11e0],
    'text/plain': ['.txt', () => true],
};

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
    fileUrls: 'object',
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

    /** Breaks off after the first piece; the rest is told to who asks for it (agentEvent). */
    broken(pieces, { detailId = 900001 } = {}) {
        return async (rec) => {
            const w = rec.openStream();
            await w.write(`id: 1716-0\nevent: 2002\ndata: {"detailId":${detailId}}\n\n`);
            await w.write(`id: 1716-1\ndata: ${JSON.stringify({ content: pieces[0] })}\n\n`);
            rec.rests.set(rec.json.chatId, { detailId, lastCursor: '1716-1', pieces: pieces.slice(1) });
            await sleep(30); // or what was written is lost with the connection
            rec.res.destroy();
        };
    },

    /** One frame that tells a failure, after `pieces`. */
    frame(payload, { event = null, pieces = [] } = {}) {
        return async (rec) => {
            const w = rec.openStream();
            for (const piece of pieces) await w.event({ content: piece });
            await w.write(`${event === null ? '' : `event: ${event}\n`}data: ${JSON.stringify(payload)}\n\n`);
            rec.res.end();
        };
    },

    status(code, body, headers = {}) {
        return (rec) => {
            rec.res.writeHead(code, { 'content-type': 'application/json', ...headers });
            rec.res.end(typeof body === 'string' ? body : JSON.stringify(body));
        };
    },

    trpc(code, name, httpStatus, more = {}) {
        return (rec) => say.status(httpStatus, trpcError(code, name, httpStatus, 'hixChat.createChat', more))(rec);
    },

    /** createChat of an account that cannot pay. */
    noCredit() {
        return say.trpc(-32003, 'FORBIDDEN', 403, { appName: 'HIXChat', usageType: 'hix_chat' });
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
        this.rec.isDone = true;
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
        this.made = 0; // chats, also those that have gone
        this.renewed = new Map(); // a newer cookie -> the session it is of
        this.renew = false; // the session call sets a newer cookie
        this.files = new Map(); // key in the store -> {session, bytes, type}
        this.rests = new Map(); // chat id -> what a broken answer has left
        this.credit = new Map(); // session -> {standard, advanced, active, ends}; none: plenty
        this.answering = new Map(); // session -> answers that are being given
        this.peak = new Map(); // session -> the most at once
        this.owners = new Map(); // socket -> the session that uses it
        this.agents = new Map(); // session -> user agents seen
        this.onDelete = null; // plays this instead of deleting
        this.createDelayMs = 0; // a chat is made so long after it was asked for, whoever has left meanwhile
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
        const parts = [];
        let session = null;
        for (const pair of (headers.cookie ?? '').split('; ')) {
            const at = pair.indexOf('=');
            const name = pair.slice(0, at);
            names.push(name);
            if (name === SESSION) session = pair.slice(at + 1);
            if (name.startsWith(`${SESSION}.`)) parts[Number(name.slice(SESSION.length + 1))] = pair.slice(at + 1);
        }
        if (parts.length > 0 && session !== null) throw malformed('a whole session cookie and one in parts');
        session ??= parts.length > 0 ? parts.join('') : null;
        session = this.renewed.get(session) ?? session;
        if (session === null || !this.sessions.includes(session)) throw unauthorized(path);
        if (new Set(names).size < names.length) throw malformed('a cookie twice');
        return session;
    }

    /** Nothing of one account shows on the connection of another. */
    note(rec) {
        const owner = this.owners.get(rec.req.socket);
        if (owner !== undefined && owner !== rec.session) throw malformed('two accounts share a connection');
        this.owners.set(rec.req.socket, rec.session);
        if (!this.agents.has(rec.session)) this.agents.set(rec.session, new Set());
        this.agents.get(rec.session).add(rec.headers['user-agent']);
    }

    fundsOf(session) {
        return this.credit.get(session) ?? { standard: 1_000_000, advanced: 1_000_000, active: true, ends: null };
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
        const version = /Chrome\/(\d+)/.exec(headers['user-agent'])[1];
        if ('sec-ch-ua' in headers && !headers['sec-ch-ua'].includes(`"Google Chrome";v="${version}"`)) throw malformed(`sec-ch-ua: ${headers['sec-ch-ua']}`);
        const platform = headers['sec-ch-ua-platform'];
        if (platform !== undefined && !headers['user-agent'].includes({ '"Windows"': 'Windows NT', '"macOS"': 'Macintosh', '"Linux"': 'Linux' }[platform])) throw malformed(`sec-ch-ua-platform: ${platform}`);
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
        this.note(rec);
        const { title, botId } = this.trpcArgument(rec, { title: 'string', botId: 'number' });
        if (title === '') throw malformed('empty title');
        const bot = Object.values(BOTS).find(([id]) => id === botId);
        if (!bot) throw new Refusal(404, `no bot ${botId}`, trpcError(-32004, 'NOT_FOUND', 404, 'hixChat.createChat'));
        const behave = this.createBehaviour?.(session);
        if (behave) return behave(rec);
        if (this.cannotPay(session, bot)) return say.noCredit()(rec);
        if (this.createDelayMs > 0) await sleep(this.createDelayMs);
        const id = `chat-${++this.made}-${session.slice(-4)}`;
        this.chats.set(id, { session, botId });
        say.status(200, [{ result: { data: { json: { id, title } } } }])(rec);
    }

    cannotPay(session, [, , cost, kind]) {
        const funds = this.fundsOf(session);
        return (kind === 'advanced' && !funds.active) || funds[kind] < cost;
    }

    async chat(rec) {
        this.checkCommon(rec, 'text/event-stream');
        const session = (rec.session = this.session(rec.headers, 'chat'));
        this.note(rec);
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
        if ('fileUrls' in json && (!Array.isArray(json.fileUrls) || json.fileUrls[0] !== json.fileUrl)) throw malformed('fileUrls does not begin with fileUrl');
        for (const url of json.fileUrls ?? (json.fileUrl ? [json.fileUrl] : [])) if (this.files.get(url.slice(`${this.base}/store/`.length))?.session !== session) throw malformed(`fileUrl ${url} is no file of this account`);
        const chat = this.chats.get(json.chatId);
        if (!chat || chat.session !== session) throw new Refusal(403, `chat ${json.chatId} is not of this account`);
        const names = Object.keys(BOTS).filter((name) => BOTS[name][0] === chat.botId);
        const bot = BOTS[names[0]];
        this.checkOrigin(rec.headers, names.map((name) => `/${name}?/id=${json.chatId}`));
        if ([...json.question].length > bot[1]) throw malformed('the question is too long');
        if (this.cannotPay(session, bot)) return say.status(402, { code: 'CREDITS_EXHAUSTED', message: 'no credit' })(rec);
        const behave = this.inOrder.shift() ?? this.fallback;
        const answering = (this.answering.get(session) ?? 0) + 1;
        this.answering.set(session, answering);
        this.peak.set(session, Math.max(answering, this.peak.get(session) ?? 0));
        try {
            await behave(rec);
        } finally {
            this.answering.set(session, this.answering.get(session) - 1);
        }
        if (rec.isDone && this.credit.has(session)) this.credit.get(session)[bot[3]] -= bot[2];
    }

    async resume(rec) {
        this.checkCommon(rec, 'text/event-stream');
        const session = (rec.session = this.session(rec.headers, 'agentEvent'));
        this.note(rec);
        this.parse(rec);
        if (Object.keys(rec.json).sort().join() !== 'chatId,detailId,lastCursor') throw malformed(`members: ${Object.keys(rec.json)}`);
        const rest = this.rests.get(rec.json.chatId);
        if (this.chats.get(rec.json.chatId)?.session !== session || !rest) throw new Refusal(404, `nothing is left of ${rec.json.chatId}`);
        if (rec.json.detailId !== rest.detailId || rec.json.lastCursor !== rest.lastCursor) throw malformed(`the rest of ${JSON.stringify(rec.json)}`);
        await say.answer({ pieces: rest.pieces })(rec);
    }

    async deleteChat(rec) {
        this.checkCommon(rec, 'application/json');
        this.checkOrigin(rec.headers, ['/']);
        const session = (rec.session = this.session(rec.headers, 'hixChat.deleteChat'));
        this.note(rec);
        const { id } = this.trpcArgument(rec, { id: 'string' });
        const behave = this.onDelete?.(id);
        if (behave) return behave(rec);
        if (this.chats.get(id)?.session !== session) throw new Refusal(404, `no chat ${id}`, trpcError(-32004, 'NOT_FOUND', 404, 'hixChat.deleteChat'));
        this.chats.delete(id);
        say.status(200, [{ result: { data: { json: null } } }])(rec);
    }

    usage(rec) {
        this.checkCommon(rec, 'application/json');
        this.checkOrigin(rec.headers, ['/']);
        const session = (rec.session = this.session(rec.headers, 'subUsage.getSubUsage'));
        this.note(rec);
        const query = new URLSearchParams(rec.query);
        if ([...query.keys()].join() !== 'batch,input' || query.get('batch') !== '1') throw malformed(`query: ${rec.query}`);
        if (query.get('input') !== JSON.stringify(USAGE_INPUT)) throw malformed(`input: ${query.get('input')}`);
        const { standard, advanced, active, ends } = this.fundsOf(session);
        const entry = (id, left, type) => ({ id, subscription_id: 1, total_count: left + 7, use_count: 7, status: 1, usage_type: type, app_name: 'HIXChat', date_start: null, date_end: ends, price_id: 1 });
        const json = { usageList: [entry(1, standard, 'basic'), entry(2, advanced, 'advanced')], isActiveSub: active };
        say.status(200, [{ result: { data: { json: { list: [] } } } }, { result: { data: { json: null } } }, { result: { data: { json } } }])(rec);
    }

    whoAmI(rec) {
        this.checkCommon(rec, 'application/json');
        this.checkOrigin(rec.headers, ['/']);
        let session;
        try {
            session = rec.session = this.session(rec.headers, 'session');
        } catch {
            return say.status(200, {})(rec);
        }
        this.note(rec);
        const headers = {};
        if (this.renew) {
            const newer = sessionToken(`newer${this.renewed.size}`);
            this.renewed.set(newer, session);
            headers['set-cookie'] = [`${SESSION}=${newer}; Path=/; Expires=Wed, 01 Jan 2098 00:00:00 GMT; HttpOnly; Secure; SameSite=Lax`, 'theme=dark; Path=/'];
        }
        say.status(200, { user: { name: 'n', email: 'n@example.com' }, expires: new Date(Date.now() + 30 * 86_400_000).toISOString() }, headers)(rec);
    }

    sign(rec) {
        this.checkCommon(rec, 'application/json');
        const session = (rec.session = this.session(rec.headers, 'sign'));
        this.note(rec);
        this.parse(rec);
        const { filename, type, ...more } = rec.json;
        if (type !== 'file' || Object.keys(more).length > 0) throw malformed(`sign ${rec.text}`);
        if (!/^20\d\d(0\d|1[0-2])[0-3]\d[0-2]\d[0-5]\d[0-6]\d\.(png|jpg|webp|pdf|doc|txt)$/.test(filename)) throw malformed(`filename ${filename}`);
        this.checkOrigin(rec.headers, [...this.chats].filter(([, chat]) => chat.session === session).map(([id]) => `/home?id=${id}`));
        const key = `u/${this.files.size}-${filename}`;
        this.files.set(key, { session, bytes: null, type: null });
        say.status(200, { sign: `${this.base}/store/${key}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=${key.length}` })(rec);
    }

    /** Stands for another host: nothing of the site's own headers may reach it. */
    store(rec) {
        const key = rec.path.slice('/store/'.length);
        const file = this.files.get(key);
        if (!file || rec.query !== `X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=${key.length}`) throw malformed(`store ${rec.url}`);
        for (const name of ['cookie', 'origin', 'referer', 'authorization']) if (name in rec.headers) throw malformed(`${name} was sent to the store`);
        const [extension, looksRight] = FILES[rec.headers['content-type']] ?? [];
        if (!extension || !key.endsWith(extension) || !looksRight(rec.bytes)) throw malformed(`${rec.headers['content-type']} into ${key}`);
        Object.assign(file, { bytes: rec.bytes, type: rec.headers['content-type'] });
        rec.res.writeHead(200);
        rec.res.end();
    }

    async serve(req, res) {
        const [path, query] = req.url.split('?');
        const rec = { req, res, method: req.method, url: req.url, path, query, headers: req.headers, rawHeaders: req.rawHeaders, text: '', json: null, session: null, rests: this.rests, isDone: false, at: performance.now(), isGone: false, goneAt: null };
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
            rec.bytes = Buffer.concat(pieces);
            rec.text = rec.bytes.toString('utf8');
            this.requests.push(rec);
            if (path.startsWith('/store/') && req.method === 'PUT') return this.store(rec);
            const routes = {
                '/api/trpc/hixChat.createChat': ['POST', this.createChat],
                '/api/trpc/hixChat.deleteChat': ['POST', this.deleteChat],
                '/api/hix/chat': ['POST', this.chat],
                '/api/hix/agentEvent': ['POST', this.resume],
                '/api/upload/sign': ['POST', this.sign],
                '/api/auth/session': ['GET', this.whoAmI],
                '/api/trpc/hixChat.getUsedBotList,subLog.getSubLog,subUsage.getSubUsage': ['GET', this.usage],
            };
            if (!Object.hasOwn(routes, path)) throw new Refusal(404, `no route ${path}`);
            const [method, serve] = routes[path];
            if (req.method !== method) throw new Refusal(405, `${req.method} ${path}`, trpcError(-32005, 'METHOD_NOT_SUPPORTED', 405, path));
            await serve.call(this, rec);
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
