// A strict Alex Sidebar: Firebase's token service and the application's API, written from the protocol notes. One server plays both hosts.
import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLIENT_KEY, atEnd, until } from './gateway.mjs';

export const FIREBASE_KEY = 'AIzaSyFake-web_key-of-39-characters-0000';

/** Client's model name -> the platform's. */
export const MODELS = {
    'claude-3-7-sonnet': 'agent_sonnet_37',
    'claude-3-7-sonnet-thinking': 'agent_sonnet_37',
    'claude-3-5-sonnet': 'agent_sonnet',
    'deepseek-r1': 'agent_deepseek_r1',
    'deepseek-v3': 'deepseek_v3',
    'o3-mini': 'agent_o3_mini',
    'gpt-4o': 'gpt4o',
    o1: 'o1',
};

// app-version -> app-build-number, as the application was released.
const VERSIONS = { '2.5.6': '190', '2.5.7': '191' };
const SEPARATOR = '›';
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789';

/** A refresh token of the right shape. */
export const refreshToken = (seed) => `AMf-vB${createHash('sha256').update(seed).digest('base64url')}${seed}`;

/** The device number an account should have: SHA-256 of its user id, each byte modulo 36. */
export const localId = (uid) => [...createHash('sha256').update(uid).digest().subarray(0, 10)].map((b) => ALPHABET[b % 36]).join('');

class Refusal extends Error {
    constructor(status, what, body) {
        super(what);
        this.status = status;
        this.body = body ?? { detail: [{ loc: ['body'], msg: what, type: 'value_error' }] };
    }
}

const malformed = (what) => new Refusal(422, what);
const firebaseError = (message, code = 400, status = 'INVALID_ARGUMENT') => new Refusal(code, message, { error: { code, message, status } });

const text = (t, thinking = false) => ({ text: { text: t, is_thinking: thinking }, code: null });
const code = (c) => ({ text: null, code: { code: c, language: 'swift' } });

/** Behaviours of a chat call: async (rec) => void. */
export const say = {
    /** The answer grows piece by piece, every snapshot whole. `last`: a separator behind the last one, too. */
    answer({ pieces = ['Bl', 'ue'], thinking = [], gapMs = 0, last = false, escaped = false } = {}) {
        return async (rec) => {
            const w = rec.open({ escaped });
            let thought = '';
            let said = '';
            for (const piece of thinking) await w.snapshot([text((thought += piece), true)]);
            for (const piece of pieces) {
                said += piece;
                if (!(await w.snapshot([...(thought ? [text(thought, true)] : []), text(said)]))) return;
                if (gapMs > 0) await sleep(gapMs);
            }
            w.end(last);
        };
    },

    /** Lists of sections, one per snapshot; 't:…' thinking, 'c:…' code, else text. */
    snapshots(lists) {
        const section = (s) => (s.startsWith('t:') ? text(s.slice(2), true) : s.startsWith('c:') ? code(s.slice(2)) : text(s));
        return async (rec) => {
            const w = rec.open();
            for (const list of lists) await w.snapshot(list.map(section));
            w.end(false);
        };
    },

    /** Some snapshots, then half an object and the end of the body. */
    cut(pieces = ['half ']) {
        return async (rec) => {
            const w = rec.open();
            let said = '';
            for (const piece of pieces) await w.snapshot([text((said += piece))]);
            rec.res.end(`${SEPARATOR}{"sections":[{"te`);
        };
    },

    /** A beginning, and then nothing until the client goes. */
    hang(pieces = ['so ']) {
        return async (rec) => {
            const w = rec.open();
            for (const piece of pieces) await w.snapshot([text(piece)]);
            await rec.gone;
        };
    },

    status(status, body = '', headers = { 'content-type': 'application/json' }) {
        return (rec) => {
            rec.res.writeHead(status, headers);
            rec.res.end(typeof body === 'string' ? body : JSON.stringify(body));
        };
    },

    challenge: (status = 403) => say.status(status, '<!DOCTYPE html><title>Just a moment...</title><script>window._cf_chl_opt={}</script>', { 'content-type': 'text/html' }),
};

class Writer {
    constructor(rec, split, escaped) {
        Object.assign(this, { rec, split, escaped, some: false });
    }

    async snapshot(sections) {
        const { res } = this.rec;
        if (res.destroyed) return false;
        let json = JSON.stringify({ sections });
        if (this.escaped) json = json.replace(/[\u0080-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
        const bytes = Buffer.from((this.some ? SEPARATOR : '') + json);
        this.some = true;
        for (let i = 0; i < bytes.length; i += this.split) {
            res.write(bytes.subarray(i, i + this.split));
            if (this.split < bytes.length) await sleep(1);
        }
        return !this.rec.isGone;
    }

    end(separator) {
        this.rec.res.end(separator ? SEPARATOR : '');
    }
}

const exactly = (object, members, where) => {
    if (object === null || typeof object !== 'object' || Array.isArray(object)) throw malformed(`${where} is no object`);
    if (Object.keys(object).sort().join() !== Object.keys(members).sort().join()) throw malformed(`${where} has ${Object.keys(object)}`);
    for (const [name, type] of Object.entries(members)) {
        const value = object[name];
        const is = Array.isArray(value) ? 'array' : Number.isInteger(value) ? 'integer' : typeof value;
        if (is !== type) throw malformed(`${where}.${name} is ${is}`);
    }
};

class FakeAlexSidebar {
    constructor({ accounts, split = Infinity, lifeS = 3600, rotate = false, cap = 2, perMonth = Infinity }) {
        Object.assign(this, { split, lifeS, rotate, cap, perMonth });
        this.accounts = accounts.map((seed) => ({ seed, uid: `uid-${seed}`, first: refreshToken(seed), refresh: refreshToken(seed), access: new Map(), devices: new Set(), chats: 0, inflight: 0, most: 0, tokens: 0, refreshing: false }));
        this.forbidden = [CLIENT_KEY];
        this.requests = [];
        this.refusals = [];
        this.inOrder = [];
        this.fallback = say.answer();
        this.tokenInOrder = []; // what the next token calls get instead: (rec, account) => void
        this.tokenDelayMs = 0;
        this.tokensTogether = this.tokensMost = 0;
        this.sockets = new Set();
        this.server = http.createServer({ keepAliveTimeout: 60_000 }, (req, res) => this.serve(req, res));
        this.server.on('connection', (socket) => {
            this.sockets.add(socket);
            socket.on('close', () => this.sockets.delete(socket));
            socket.on('error', () => {});
        });
    }

    get base() {
        return `http://127.0.0.1:${this.port}`;
    }

    get credentials() {
        return this.accounts.map((a) => a.first);
    }

    next(...behaviours) {
        this.inOrder.push(...behaviours);
    }

    always(behave) {
        this.fallback = behave;
    }

    of(path) {
        return this.requests.filter((rec) => rec.path === path);
    }

    get chats() {
        return this.of('/call_assistant5');
    }

    get tokens() {
        return this.of('/v1/token');
    }

    account(seed) {
        return this.accounts.find((a) => a.seed === seed);
    }

    /** From now on the access tokens given so far are refused. */
    expire(seed) {
        for (const a of this.accounts) if (seed === undefined || a.seed === seed) a.access.clear();
    }

    checkLeaks(rec) {
        const { headers } = rec;
        for (const secret of this.forbidden) if (rec.url.includes(secret) || rec.rawHeaders.some((h) => h.includes(secret)) || rec.text.includes(secret)) throw malformed(`leak: ${secret}`);
        for (const name of ['authorization', 'expect', 'x-api-key', 'x-forwarded-for', 'forwarded', 'via', 'cookie', 'proxy-authorization', 'te', 'x-request-id', 'origin', 'referer'])
            if (name in headers) throw malformed(`leak: the header ${name} came through`);
        if (headers.host !== `127.0.0.1:${this.port}`) throw malformed(`Host: ${headers.host}`);
    }

    async token(rec) {
        this.checkLeaks(rec);
        const { headers } = rec;
        if (headers['content-type'] !== 'application/x-www-form-urlencoded') throw malformed(`Content-Type: ${headers['content-type']}`);
        if (headers['user-agent'] !== 'node-fetch/1.0 (+https://github.com/bitinn/node-fetch)') throw malformed(`User-Agent: ${headers['user-agent']}`);
        if (headers['x-client-version'] !== 'Node/JsCore/10.5.2/FirebaseCore-web') throw malformed(`X-Client-Version: ${headers['x-client-version']}`);
        if (headers['x-firebase-gmpid'] !== '1:252179682924:web:9c80c6a32cb4682cbfaa49') throw malformed(`X-Firebase-gmpid: ${headers['x-firebase-gmpid']}`);
        if (rec.query !== `key=${FIREBASE_KEY}`) throw firebaseError('API key not valid. Please pass a valid API key.');
        const form = new URLSearchParams(rec.text);
        if ([...form.keys()].join() !== 'grant_type,refresh_token') throw malformed(`form: ${rec.text}`);
        if (form.get('grant_type') !== 'refresh_token') throw firebaseError('INVALID_GRANT_TYPE');
        if (form.get('refresh_token') === '') throw firebaseError('MISSING_REFRESH_TOKEN');
        rec.refresh = form.get('refresh_token');
        const account = this.accounts.find((a) => a.refresh === rec.refresh);
        if (!account) throw firebaseError('INVALID_REFRESH_TOKEN');
        rec.account = account;
        if (account.refreshing) throw malformed(`two token calls at once for ${account.seed}`);
        account.refreshing = true;
        this.tokensMost = Math.max(this.tokensMost, ++this.tokensTogether);
        try {
            if (this.tokenDelayMs > 0) await sleep(this.tokenDelayMs);
            const behave = this.tokenInOrder.shift();
            if (behave) return await behave(rec, account);
            this.giveToken(rec, account);
        } finally {
            account.refreshing = false;
            this.tokensTogether--;
        }
    }

    giveToken(rec, account) {
        const exp = Math.floor(Date.now() / 1000) + this.lifeS;
        const part = (o) => Buffer.from(JSON.stringify(o)).toString('base64url');
        const access = `${part({ alg: 'RS256' })}.${part({ user_id: account.uid, sub: account.uid, exp })}.${randomBytes(24).toString('base64url')}`;
        account.access.set(access, exp * 1000);
        account.tokens++;
        if (this.rotate) account.refresh = refreshToken(`${account.seed}-${account.tokens}`);
        say.status(200, { access_token: access, expires_in: String(this.lifeS), token_type: 'Bearer', refresh_token: account.refresh, id_token: access, user_id: account.uid, project_id: '252179682924' })(rec);
    }

    checkMessage(m, i, n) {
        exactly(m, { role: 'string', id: 'integer', ts_created: 'integer', web_access: 'boolean', img_urls: 'array', relevant_files: 'array', docs: 'array', code_contexts: 'array', think_first: 'boolean', sections: 'array' }, `messages[${i}]`);
        if (!['User', 'Assistant', 'System'].includes(m.role)) throw malformed(`role ${m.role}`);
        if (m.id !== i) throw malformed(`messages[${i}].id is ${m.id}`);
        if (Math.abs(m.ts_created - Date.now() / 1000) > 60) throw malformed(`ts_created ${m.ts_created}`);
        for (const name of ['img_urls', 'relevant_files', 'docs', 'code_contexts']) if (m[name].length > 0) throw malformed(`${name} is not empty`);
        if ((m.think_first || m.web_access) && (i !== n - 1 || m.role !== 'User')) throw malformed(`messages[${i}] is not the last question`);
        if (m.sections.length === 0) throw malformed(`messages[${i}] has no content`);
        for (const s of m.sections) {
            exactly(s, { text: 'object' }, 'section');
            exactly(s.text, { text: 'string', is_thinking: 'boolean' }, 'section.text');
            if (s.text.text === '' || s.text.is_thinking) throw malformed('an empty or thinking section');
        }
    }

    checkBody(json) {
        exactly(json, { model: 'string', prompt: 'string', api_keys: 'object', deps: 'array', messages: 'array' }, 'body');
        exactly(json.api_keys, { anthropic: 'string', perplexity: 'string', gemini: 'string', openai: 'string' }, 'api_keys');
        if (Object.values(json.api_keys).some((k) => k !== '') || json.deps.length > 0) throw malformed('api_keys and deps are empty');
        if (!Object.values(MODELS).includes(json.model)) throw malformed(`model ${json.model}`);
        if (json.messages.length === 0) throw malformed('no messages');
        json.messages.forEach((m, i) => this.checkMessage(m, i, json.messages.length));
        const system = json.messages.find((m) => m.role === 'System');
        if (json.prompt !== (system && system.sections.length === 1 ? system.sections[0].text.text : '')) throw malformed(`prompt: ${json.prompt}`);
    }

    async chat(rec) {
        this.checkLeaks(rec);
        const { headers } = rec;
        if (rec.query !== undefined) throw malformed(`query: ${rec.query}`);
        if (headers['content-type'] !== 'application/json') throw malformed(`Content-Type: ${headers['content-type']}`);
        if (VERSIONS[headers['app-version']] !== headers['app-build-number']) throw malformed(`version ${headers['app-version']}, build ${headers['app-build-number']}`);
        if (headers['user-agent'] !== `AlexSideBar/${headers['app-build-number']} CFNetwork/1568.300.101 Darwin/24.2.0`) throw malformed(`User-Agent: ${headers['user-agent']}`);
        if (headers['accept-language'] !== 'zh-CN,zh-Hans;q=0.9') throw malformed(`accept-language: ${headers['accept-language']}`);
        if (!/^[A-Z0-9]{10}$/.test(headers['local-id'] ?? '')) throw malformed(`local-id: ${headers['local-id']}`);
        if (!headers.auth) throw new Refusal(401, 'no auth', { detail: 'Bearer authentication is needed' });
        rec.account = this.accounts.find((a) => a.access.has(headers.auth));
        if (!rec.account || rec.account.access.get(headers.auth) < Date.now()) {
            say.status(401, { error: 'Invalid token' })(rec); // no mistake of the gateway's
            rec.unknownToken = true;
            return;
        }
        const { account } = rec;
        account.devices.add(headers['local-id']);
        if (account.devices.size > 1) throw malformed(`${account.seed} has devices ${[...account.devices]}`);
        try {
            rec.json = JSON.parse(rec.text);
        } catch {
            throw malformed('not JSON');
        }
        this.checkBody(rec.json);
        if (account.chats >= this.perMonth) throw new Refusal(429, `${account.seed} has had its ${this.perMonth} chats`, { error: 'Usage limit exceeded', message: 'You have reached your Kilo Code usage limit. Please upgrade.' });
        account.most = Math.max(account.most, ++account.inflight);
        if (account.inflight > this.cap) {
            account.inflight--;
            throw new Refusal(429, `${account.seed} has ${this.cap + 1} requests at once`, { error: 'Too many concurrent requests', message: 'You have reached your maximum concurrent request limit. Please try again later.' });
        }
        try {
            account.chats++;
            await (this.inOrder.shift() ?? this.fallback)(rec);
            await Promise.race([rec.gone, until(() => rec.res.writableFinished || rec.isGone, 'the answer to be read', 20_000)]);
        } finally {
            account.inflight--;
        }
    }

    async serve(req, res) {
        const [path, query] = req.url.split('?');
        const rec = { req, res, method: req.method, url: req.url, path, query, headers: req.headers, rawHeaders: req.rawHeaders, text: '', json: null, account: null, at: performance.now(), isGone: false, goneAt: null };
        rec.gone = new Promise((done) => {
            res.on('close', () => {
                if (!res.writableFinished) (rec.isGone = true), (rec.goneAt = performance.now());
                done();
            });
        });
        rec.open = ({ escaped = false } = {}) => {
            res.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' });
            res.flushHeaders();
            return new Writer(rec, this.split, escaped);
        };
        try {
            const pieces = [];
            for await (const piece of req) pieces.push(piece);
            rec.text = Buffer.concat(pieces).toString('utf8');
            this.requests.push(rec);
            const routes = { '/v1/token': this.token, '/call_assistant5': this.chat };
            if (!Object.hasOwn(routes, path)) throw new Refusal(404, `no route ${path}`, { detail: 'Not Found' });
            if (req.method !== 'POST') throw new Refusal(405, `${req.method} ${path}`, { detail: 'Method Not Allowed' });
            await routes[path].call(this, rec);
        } catch (error) {
            if (!(error instanceof Refusal)) {
                if (req.socket.destroyed) return;
                throw error;
            }
            this.refusals.push({ status: error.status, what: error.message });
            if (res.headersSent) return;
            res.writeHead(error.status, { 'content-type': 'application/json' });
            res.end(JSON.stringify(error.body));
        }
    }

    close() {
        for (const socket of this.sockets) socket.destroy();
        return new Promise((done) => this.server.close(done));
    }
}

/**
 * options: accounts (names), split (bytes per packet), lifeS (of access tokens), rotate (each token call brings another refresh token),
 * cap (chats at once per account), perMonth, strict (false: refusals do not fail the test).
 */
export async function startFakeAlexSidebar(t, options = {}) {
    const fake = new FakeAlexSidebar({ accounts: ['one', 'two'], ...options });
    await new Promise((done) => fake.server.listen(0, '127.0.0.1', done));
    fake.port = fake.server.address().port;
    atEnd(t, async () => {
        await fake.close();
        if (options.strict !== false && fake.refusals.length > 0) throw new Error(`the fake Alex Sidebar refused: ${JSON.stringify(fake.refusals.slice(0, 5))}`);
    });
    return fake;
}
