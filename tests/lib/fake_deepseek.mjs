// A strict chat.deepseek.com: accounts with conversations, challenges whose answers are checked and good once, files, and the answer as patches in
// any of its three generations. Written from docs/protocols/deepseek.md.
import { readFileSync } from 'node:fs';
import { createHash, randomBytes, randomInt, randomUUID } from 'node:crypto';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLIENT_KEY, atEnd } from './gateway.mjs';

// --- the hash: SHA3-256 whose permutation has no first round ---------------------------------------------------------

const MASK = (1n << 64n) - 1n;
const rotl = (v, n) => ((v << BigInt(n)) | (v >> BigInt(64 - n))) & MASK;
const ROTATIONS = [
    [0, 1, 62, 28, 27],
    [36, 44, 6, 55, 20],
    [3, 10, 43, 25, 39],
    [41, 45, 15, 21, 8],
    [18, 2, 61, 56, 14],
]; // [y][x]

// Round constants by their definition: bits of a linear feedback shift register (FIPS 202, algorithm 5).
function roundConstants() {
    const bits = [];
    let r = 1;
    for (let t = 0; t < 255; t++) {
        bits.push(r & 1);
        r <<= 1;
        if (r & 0x100) r ^= 0x171;
    }
    return Array.from({ length: 24 }, (_, round) => {
        let rc = 0n;
        for (let j = 0; j <= 6; j++) if (bits[(j + 7 * round) % 255]) rc |= 1n << BigInt(2 ** j - 1);
        return rc;
    });
}
const RC = roundConstants();

function permute(a, first) {
    for (let round = first; round < 24; round++) {
        const c = [0, 1, 2, 3, 4].map((x) => a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20]);
        const d = [0, 1, 2, 3, 4].map((x) => c[(x + 4) % 5] ^ rotl(c[(x + 1) % 5], 1));
        const b = new Array(25);
        for (let y = 0; y < 5; y++)
            for (let x = 0; x < 5; x++) {
                const v = a[x + 5 * y] ^ d[x];
                b[y + 5 * ((2 * x + 3 * y) % 5)] = ROTATIONS[y][x] ? rotl(v, ROTATIONS[y][x]) : v;
            }
        for (let y = 0; y < 5; y++) for (let x = 0; x < 5; x++) a[x + 5 * y] = b[x + 5 * y] ^ (~b[((x + 1) % 5) + 5 * y] & MASK & b[((x + 2) % 5) + 5 * y]);
        a[0] ^= RC[round];
    }
}

function sponge(message, first) {
    const padded = Buffer.alloc(Math.floor(message.length / 136 + 1) * 136);
    message.copy(padded);
    padded[message.length] ^= 0x06;
    padded[padded.length - 1] ^= 0x80;
    const a = new Array(25).fill(0n);
    for (let at = 0; at < padded.length; at += 136) {
        for (let i = 0; i < 17; i++) a[i] ^= padded.readBigUInt64LE(at + 8 * i);
        permute(a, first);
    }
    const out = Buffer.alloc(32);
    for (let i = 0; i < 4; i++) out.writeBigUInt64LE(a[i], 8 * i);
    return out.toString('hex');
}

export const deepseekHash = (text) => sponge(Buffer.from(text), 1);

// Ourselves first: all 24 rounds are SHA3-256, and without the first one it is what the platform computed.
{
    if (sponge(Buffer.from('abc'), 0) !== createHash('sha3-256').update('abc').digest('hex')) throw new Error('the permutation is wrong');
    const vectors = JSON.parse(readFileSync(new URL('../fixtures/deepseek/pow.json', import.meta.url), 'utf8'));
    for (const v of vectors.raw_hash.filter((one) => one.input_hex !== undefined))
        if (sponge(Buffer.from(v.input_hex, 'hex'), 1) !== v.hash) throw new Error(`the hash is wrong for ${v.name}`);
}

// --- failures --------------------------------------------------------------------------------------------------------

class Refusal extends Error {
    constructor(what, { status = 200, body, headers = {}, expected = false } = {}) {
        super(what);
        Object.assign(this, { status, body, headers, expected });
    }
}

export const biz = (data) => ({ code: 0, msg: '', data: { biz_code: 0, biz_msg: '', biz_data: data } });
export const bizError = (code, msg, data = null) => ({ code: 0, msg: '', data: { biz_code: code, biz_msg: msg, biz_data: data } });
export const codeError = (code, msg) => ({ code, msg, data: null });

const malformed = (what, field = 'body') => new Refusal(what, { status: 422, body: { detail: [{ loc: `body.${field}`, msg: what }] } });
const unauthorized = () => new Refusal('wrong token', { body: codeError(40003, 'Authorization Failed (invalid token)'), expected: true });
const badProof = (what) => new Refusal(what, { body: codeError(40301, 'INVALID_POW_RESPONSE') });

const CHROME = /^Mozilla\/5\.0 \([^)]+\) AppleWebKit\/537\.36 \(KHTML, like Gecko\) Chrome\/\d+(\.\d+){3} Safari\/537\.36$/;

/** A user token of the right shape: 64 characters of base64. */
export const userToken = (seed) => createHash('sha384').update(seed).digest('base64');

// --- what an answer may be -------------------------------------------------------------------------------------------

/** Behaviours of a question: async (rec) => void. */
export const say = {
    /** results: of a search; cited: their numbers in the text. before: fragments that a continued answer repeats first. tail: the stream ends, too. */
    answer({ pieces = ['Blue'], reasoning = [], results = [], cited = [], before = [], gapMs = 0, tokens = null, status = 'FINISHED', tail = true } = {}) {
        return async (rec) => {
            const w = rec.openStream();
            const generation = rec.fake.generation;
            const step = async (fn) => {
                if (gapMs > 0) await sleep(gapMs);
                return fn();
            };
            if (generation === 'choices') {
                for (const text of reasoning) await step(() => w.data({ choices: [{ index: 0, delta: { content: text, type: 'thinking' } }], message_id: rec.messageId }));
                if (results.length > 0) await w.data({ choices: [{ index: 0, delta: { content: results, type: 'search_result' } }], message_id: rec.messageId });
                for (const text of pieces) if (!(await step(() => w.data({ choices: [{ index: 0, delta: { content: text, type: 'text' } }], message_id: rec.messageId })))) return;
                await w.data({ choices: [{ finish_reason: 'stop', index: 0, delta: { content: '', type: 'text' } }], message_id: rec.messageId });
                return w.end('data: [DONE]\n\n');
            }
            const texts = generation === 'fragments' ? fragmentsOf : contentsOf;
            await w.ready();
            for await (const patch of texts({ rec, pieces, reasoning, results, cited, before })) if (!(await step(() => w.data(patch)))) return;
            if (tokens !== null) await w.data({ p: 'response', o: 'BATCH', v: [{ p: 'accumulated_token_usage', v: tokens }, { p: 'quasi_status', v: status }] });
            await w.data({ p: 'response/status', o: 'SET', v: status });
            if (tail) await w.tail();
            else await rec.gone;
        };
    },

    /** Piece n+1 only after confirm() for piece n. */
    lockstep(pieces) {
        let release = () => {};
        let tickets = 0;
        const behave = async (rec) => {
            const w = rec.openStream();
            await w.ready();
            for await (const patch of fragmentsOf({ rec, pieces, reasoning: [], results: [], cited: [] })) {
                await w.data(patch);
                while (tickets === 0 && !rec.isGone) await Promise.race([new Promise((done) => (release = done)), rec.gone]);
                if (rec.isGone) return;
                tickets--;
            }
            await w.data({ p: 'response/status', o: 'SET', v: 'FINISHED' });
            await w.tail();
        };
        return Object.assign(behave, { confirm: () => (tickets++, release()) });
    },

    /** Pieces, then the end of the stream without an end status. */
    cut(pieces = ['half ']) {
        return async (rec) => {
            const w = rec.openStream();
            await w.ready();
            for await (const patch of fragmentsOf({ rec, pieces, reasoning: [], results: [], cited: [] })) await w.data(patch);
            w.end();
        };
    },

    hang(pieces = []) {
        return async (rec) => {
            const w = rec.openStream();
            await w.ready();
            for await (const patch of fragmentsOf({ rec, pieces, reasoning: [], results: [], cited: [] })) await w.data(patch);
            await rec.gone;
        };
    },

    /** A failure inside of the stream. */
    hint(reason, content, { pieces = [] } = {}) {
        return async (rec) => {
            const w = rec.openStream();
            await w.ready();
            for await (const patch of fragmentsOf({ rec, pieces, reasoning: [], results: [], cited: [] })) await w.data(patch);
            await w.data({ type: 'error', content, clear_response: true, finish_reason: reason }, 'hint');
            await w.data({ click_behavior: 'retry', auto_resume: false }, 'close');
            w.end();
        };
    },

    status(code, body, headers = {}) {
        return (rec) => rec.reply(code, body, headers);
    },

    json(body) {
        return say.status(200, body);
    },

    waf() {
        return say.status(202, '', { 'x-amzn-waf-action': 'challenge' });
    },

    html(code = 403) {
        return say.status(code, '<!DOCTYPE html><html><body>Human?</body></html>', { 'content-type': 'text/html' });
    },
};

async function* fragmentsOf({ rec, reasoning, pieces, results, cited, before = [] }) {
    let id = before.length + 1;
    const fragments = [...before, ...(reasoning.length > 0 ? [{ id: id++, type: 'THINK', content: reasoning[0] }] : [])];
    yield { v: { response: { message_id: rec.messageId, parent_id: rec.messageId - 1, status: 'WIP', fragments, accumulated_token_usage: 0 } } };
    if (reasoning.length > 1) yield { p: 'response/fragments/-1/content', o: 'APPEND', v: reasoning[1] };
    for (const text of reasoning.slice(2)) yield { v: text };
    if (results.length > 0) {
        yield { p: 'response/search_status', o: 'SET', v: 'SEARCHING' };
        yield { p: 'response/search_results', o: 'SET', v: results.map((one) => ({ snippet: '', site_name: 'x', cite_index: null, ...one })) };
        yield { p: 'response/search_status', o: 'SET', v: 'FINISHED' };
        if (cited.length > 0) yield { p: 'response/search_results', o: 'BATCH', v: cited.map((number, at) => ({ p: `${at}/cite_index`, v: number })) };
    }
    if (pieces.length === 0) return;
    if (before.length > 0) {
        for (const [at, text] of pieces.entries()) yield at === 0 ? { p: 'response/fragments/-1/content', o: 'APPEND', v: text } : { v: text };
        return;
    }
    yield { p: 'response', o: 'BATCH', v: [{ p: 'fragments', o: 'APPEND', v: [{ id, type: 'RESPONSE', content: pieces[0] }] }, { p: 'has_pending_fragment', v: false }] };
    if (pieces.length > 1) yield { p: 'response/fragments/-1/content', o: 'APPEND', v: pieces[1] };
    for (const text of pieces.slice(2)) yield { v: text };
}

async function* contentsOf({ rec, reasoning, pieces, results, cited }) {
    yield { v: { response: { message_id: rec.messageId, parent_id: rec.messageId - 1, content: '', thinking_content: null, status: 'WIP', tips: [] } } };
    if (results.length > 0) yield { v: results.map((one, at) => ({ cite_index: cited[at] ?? null, ...one })), p: 'response/search_results' };
    for (const [at, text] of reasoning.entries()) yield at === 0 ? { v: text, p: 'response/thinking_content' } : { v: text };
    if (reasoning.length > 0) yield { v: 3, p: 'response/thinking_elapsed_secs', o: 'SET' };
    for (const [at, text] of pieces.entries()) yield at === 0 ? { v: text, p: 'response/content' } : { v: text };
}

class StreamWriter {
    constructor(rec, split) {
        Object.assign(this, { rec, split });
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

    data(payload, name = null) {
        return this.write(`${name === null ? '' : `event: ${name}\n`}data: ${JSON.stringify(payload)}\n\n`);
    }

    ready() {
        return this.data({ request_message_id: this.rec.messageId - 1, response_message_id: this.rec.messageId, model_type: 'default' }, 'ready');
    }

    async tail() {
        await this.data({}, 'finish');
        await this.data({ updated_at: 1771229508.1 }, 'update_session');
        await this.data({ content: 'FINISHED title' }, 'title');
        await this.data({ click_behavior: 'none', auto_resume: false }, 'close');
        this.end();
    }

    end(text) {
        this.rec.finished = true;
        this.rec.res.end(text);
    }
}

// --- the platform ----------------------------------------------------------------------------------------------------

const QUESTION = {
    chat_session_id: 'string',
    parent_message_id: 'integer?',
    prompt: 'string',
    ref_file_ids: 'array',
    thinking_enabled: 'boolean',
    search_enabled: 'boolean',
    preempt: 'boolean',
};
const QUESTION_MORE = { model_type: 'string?', action: 'string?', client_stream_id: 'string?' };
const PROOF_MEMBERS = ['algorithm', 'challenge', 'salt', 'answer', 'signature', 'target_path'];
const MODEL_TYPES = [null, 'default', 'expert', 'vision'];

function typeOk(value, type) {
    if (type.endsWith('?') && value === null) return true;
    const name = type.replace('?', '');
    if (name === 'integer') return Number.isInteger(value);
    return name === 'array' ? Array.isArray(value) : typeof value === name;
}

function members(json, needed, more = {}) {
    if (json === null || typeof json !== 'object' || Array.isArray(json)) throw malformed('no object');
    for (const [name, value] of Object.entries(json)) {
        const type = needed[name] ?? more[name];
        if (!type) throw malformed(`unknown member ${name}`, name);
        if (!typeOk(value, type)) throw malformed(`${name} is not a ${type}: ${JSON.stringify(value)}`, name);
    }
    for (const name of Object.keys(needed)) if (!(name in json)) throw malformed(`no ${name}`, name);
    return json;
}

class FakeDeepseek {
    constructor({ accounts, generation = 'fragments', split = Infinity, difficulty = 144_000, cap = 2, latencyMs = 0, nested = false, client = {} }) {
        Object.assign(this, { generation, split, difficulty, cap, latencyMs, nested });
        this.client = { 'x-client-platform': 'web', 'x-client-locale': 'zh_CN', 'x-client-version': '2.0.0', 'x-app-version': '20241129.1', 'x-client-timezone-offset': '28800', ...client };
        this.accounts = [];
        for (const one of accounts) this.addAccount(one);
        this.requests = [];
        this.refusals = []; // what a client that does everything right never sees
        this.overCap = [];
        this.peak = 0;
        this.behaviours = new Map(); // path -> (account) => behaviour or null
        this.inOrder = [];
        this.continuations = [];
        this.fallback = say.answer();
        this.challenges = 0;
        this.sockets = new Set();
        this.server = http.createServer({ keepAliveTimeout: 60_000 }, (req, res) => this.serve(req, res));
        this.server.on('checkContinue', (req, res) => this.serve(req, res));
        this.server.on('connection', (socket) => {
            this.sockets.add(socket);
            socket.on('close', () => this.sockets.delete(socket));
            socket.on('error', () => {});
        });
    }

    /** account: a token, or {token?, email?, mobile?, password?, exchange?: the token is only good to get another}. */
    addAccount(given) {
        const account = typeof given === 'string' ? { token: given } : { ...given };
        Object.assign(account, { sessions: new Map(), proofs: new Map(), files: new Map(), streams: 0, peak: 0, created: 0, deleted: 0, logins: 0, stopped: [] });
        account.valid = new Set(account.token && !account.exchange ? [account.token] : []);
        this.accounts.push(account);
        return account;
    }

    get base() {
        return `http://127.0.0.1:${this.port}`;
    }

    get tokens() {
        return this.accounts.filter((a) => a.token).map((a) => a.token);
    }

    /** The next questions play these; afterwards `always`. */
    next(...behaviours) {
        this.inOrder.push(...behaviours);
    }

    always(behave) {
        this.fallback = behave;
    }

    /** Calls of this path are played by what `choose(account)` gives; null: the real thing. */
    on(path, choose) {
        this.behaviours.set(path, choose);
    }

    of(path) {
        return this.requests.filter((rec) => rec.path === path);
    }

    /** Conversations that are there. */
    get sessionsLeft() {
        return this.accounts.reduce((n, account) => n + account.sessions.size, 0);
    }

    // --- what every call has ---

    checkHeaders(rec, { anonymous = false, upload = false } = {}) {
        const { headers } = rec;
        const want = { accept: '*/*', origin: 'https://chat.deepseek.com', referer: 'https://chat.deepseek.com/', ...this.client };
        if (!upload) want['content-type'] = 'application/json';
        for (const [name, value] of Object.entries(want)) if (headers[name] !== value) throw malformed(`header ${name}: ${headers[name]}`);
        if (!headers['user-agent']) throw new Refusal('no User-Agent', { status: 429, body: '' });
        if (!CHROME.test(headers['user-agent'])) throw malformed(`user-agent: ${headers['user-agent']}`);
        for (const name of ['x-forwarded-for', 'x-request-id', 'expect', 'via']) if (name in headers) throw malformed(`header ${name}`);
        if (JSON.stringify(headers).includes(CLIENT_KEY)) throw malformed("the client's key");
        const names = rec.rawHeaders.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase());
        if (new Set(names).size !== names.length) throw malformed(`a header twice: ${names}`);
        if (!this.needsProof(rec) && 'x-ds-pow-response' in headers) throw malformed('a proof where none is needed');
        if (anonymous) {
            if ('authorization' in headers) throw malformed('a login with a token');
            return;
        }
        const token = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1];
        if (!token) throw malformed(`authorization: ${headers.authorization}`);
        rec.token = token;
        rec.account = this.accounts.find((a) => a.valid.has(token) || (rec.path === '/api/v0/users/current' && a.token === token));
        if (!rec.account) throw unauthorized();
    }

    needsProof(rec) {
        return ['/api/v0/chat/completion', '/api/v0/chat/continue', '/api/v0/file/upload_file'].includes(rec.path);
    }

    json(rec) {
        try {
            rec.json = JSON.parse(rec.bytes.toString('utf8'));
        } catch {
            throw malformed('no JSON');
        }
        return rec.json;
    }

    // --- proofs of work ---

    challenge(rec) {
        const { target_path: path } = members(this.json(rec), { target_path: 'string' });
        if (!['/api/v0/chat/completion', '/api/v0/file/upload_file', '/api/v0/chat/edit_message'].includes(path)) throw malformed(`target_path ${path}`);
        const salt = randomBytes(10).toString('hex');
        const expire_at = Date.now() + 300_000;
        const answer = randomInt(this.difficulty);
        const challenge = {
            algorithm: 'DeepSeekHashV1',
            challenge: deepseekHash(`${salt}_${expire_at}_${answer}`),
            salt,
            signature: randomBytes(32).toString('hex'),
            difficulty: this.difficulty,
            expire_at,
            expire_after: 300_000,
            target_path: path,
        };
        this.challenges++;
        rec.account.proofs.set(challenge.challenge, { ...challenge, answer, used: false });
        rec.reply(200, biz({ challenge }));
    }

    checkProof(rec, path, { again = false } = {}) {
        const header = rec.headers['x-ds-pow-response'];
        if (!header) throw badProof('no proof');
        const text = Buffer.from(header, 'base64').toString('utf8');
        if (Buffer.from(text).toString('base64') !== header) throw badProof('a proof that is not plain base64');
        let proof;
        try {
            proof = JSON.parse(text);
        } catch {
            throw badProof('a proof that is no JSON');
        }
        if (Object.keys(proof).sort().join() !== [...PROOF_MEMBERS].sort().join()) throw badProof(`members of the proof: ${Object.keys(proof)}`);
        const issued = rec.account.proofs.get(proof.challenge);
        if (!issued) throw badProof('a proof of another account, or of none');
        for (const name of PROOF_MEMBERS) if (name !== 'answer' && proof[name] !== issued[name]) throw badProof(`${name} of the proof`);
        if (!/"answer":\s*\d+\s*[,}]/.test(text) || proof.answer !== issued.answer) throw badProof(`answer ${proof.answer}, not ${issued.answer}`);
        if (issued.target_path !== path) throw badProof(`a proof for ${issued.target_path}`);
        if (issued.expire_at < Date.now()) throw badProof('a proof that is over');
        if (issued.used !== again) throw badProof(again ? 'a fresh proof to continue' : 'a proof for the second time');
        issued.used = true;
    }

    // --- conversations ---

    create(rec) {
        members(this.json(rec), {}, { character_id: 'string?', agent: 'string' });
        const id = randomUUID();
        rec.account.sessions.set(id, { id, messages: 0, answers: new Set(), streaming: 0 });
        rec.account.created++;
        rec.reply(200, biz(this.nested ? { chat_session: { id, ttl_seconds: 259_200 } } : { id }));
    }

    session(rec, id) {
        const session = rec.account.sessions.get(id);
        if (!session) throw new Refusal(`no conversation ${id} of this account`, { body: bizError(7, 'invalid chat session') });
        return session;
    }

    async remove(rec) {
        const { chat_session_id: id } = members(this.json(rec), { chat_session_id: 'string' });
        const session = this.session(rec, id);
        for (let i = 0; i < 50 && session.streaming > 0; i++) await sleep(10); // the end of its connection may be on the way
        if (session.streaming > 0) throw malformed(`conversation ${id} is deleted while it answers`);
        rec.account.sessions.delete(id);
        rec.account.deleted++;
        rec.reply(200, biz(null));
    }

    stop(rec) {
        const { chat_session_id: id, message_id: message } = members(this.json(rec), { chat_session_id: 'string', message_id: 'integer' });
        if (!this.session(rec, id).answers.has(message)) throw malformed(`no answer ${message}`);
        rec.account.stopped.push(id);
        rec.reply(200, biz(null));
    }

    async stream(rec, session, behave) {
        const { account } = rec;
        rec.session = session;
        account.streams++;
        session.streaming++;
        account.peak = Math.max(account.peak, account.streams);
        this.peak = Math.max(this.peak, account.streams);
        if (account.streams > this.cap) this.overCap.push({ account: account.token ?? account.email, streams: account.streams });
        rec.gone.then(() => {
            account.streams--;
            session.streaming--;
        });
        await behave(rec);
    }

    async question(rec) {
        const json = members(this.json(rec), QUESTION, QUESTION_MORE);
        const session = this.session(rec, json.chat_session_id);
        if (json.prompt === '') throw malformed('no prompt', 'prompt');
        if ('model_type' in json && !MODEL_TYPES.includes(json.model_type)) throw malformed(`model_type ${json.model_type}`, 'model_type');
        if (session.messages === 0 ? json.parent_message_id !== null : !session.answers.has(json.parent_message_id))
            throw malformed(`parent_message_id ${json.parent_message_id} in a conversation of ${session.messages} messages`, 'parent_message_id');
        for (const id of json.ref_file_ids) if (rec.account.files.get(id)?.status !== 'SUCCESS') throw new Refusal(`no file ${id}`, { body: bizError(9, 'invalid ref file id') });
        this.checkProof(rec, '/api/v0/chat/completion');
        session.messages += 2;
        rec.messageId = session.messages;
        session.answers.add(rec.messageId);
        await this.stream(rec, session, this.inOrder.shift() ?? this.fallback);
    }

    async goOn(rec) {
        const json = members(this.json(rec), { chat_session_id: 'string', message_id: 'integer', fallback_to_resume: 'boolean' });
        const session = this.session(rec, json.chat_session_id);
        if (!session.answers.has(json.message_id) || json.fallback_to_resume !== true) throw malformed('nothing to continue');
        this.checkProof(rec, '/api/v0/chat/completion', { again: true });
        rec.messageId = json.message_id;
        const behave = this.continuations.shift();
        if (!behave) throw malformed('a continuation that was not expected');
        await this.stream(rec, session, behave);
    }

    // --- accounts ---

    login(rec) {
        const json = members(this.json(rec), { password: 'string', device_id: 'string', os: 'string' }, { email: 'string', mobile: 'string', area_code: 'string?' });
        if (!['web', 'android'].includes(json.os) || json.device_id === '') throw malformed('os, device_id');
        if (('email' in json) === ('mobile' in json)) throw malformed('email or mobile');
        if ('mobile' in json !== 'area_code' in json) throw malformed('mobile and area_code');
        const account = this.accounts.find((a) => a.password && a.password === json.password && ('email' in json ? a.email === json.email : a.mobile === json.mobile));
        if (!account) return rec.reply(200, bizError(2, 'PASSWORD_OR_USER_NAME_IS_WRONG'));
        if (account.device && account.device !== json.device_id) throw malformed('another device_id of the same account');
        account.device = json.device_id;
        account.logins++;
        const token = userToken(`${account.email ?? account.mobile} ${account.logins}`);
        account.valid.add(token);
        rec.reply(200, biz({ code: 0, user: { id: 'u', token, email: account.email ?? null } }));
    }

    current(rec) {
        const { account } = rec;
        let token = rec.token;
        if (account.exchange && rec.token === account.token) {
            if (account.exchange === 'refused') throw unauthorized();
            account.valid.add((token = userToken(`exchanged ${account.token} ${account.valid.size}`)));
        }
        rec.reply(200, biz({ id: 'u', token, email: null, chat: { is_muted: account.mutedUntil ? 1 : 0, mute_until: account.mutedUntil ?? 0 } }));
    }

    quota(rec) {
        rec.reply(200, biz({ thinking: { quota: 50, used: 3 } }));
    }

    // --- files ---

    upload(rec) {
        const { headers } = rec;
        const boundary = /^multipart\/form-data; boundary=([\w'()+,./:=?-]{1,70})$/.exec(headers['content-type'] ?? '')?.[1];
        if (!boundary) throw malformed(`content-type ${headers['content-type']}`);
        this.checkProof(rec, '/api/v0/file/upload_file');
        const text = rec.bytes.toString('latin1');
        const m = new RegExp(`^--${boundary}\\r\\nContent-Disposition: form-data; name="file"; filename="([^"\\r\\n]+)"\\r\\nContent-Type: ([\\w.+/-]+)\\r\\n\\r\\n([^]*)\\r\\n--${boundary}--\\r\\n$`).exec(text);
        if (!m) throw malformed('no multipart with one part named file');
        const bytes = Buffer.from(m[3], 'latin1');
        if (headers['x-file-size'] !== String(bytes.length)) throw malformed(`x-file-size ${headers['x-file-size']}, not ${bytes.length}`);
        if (!['0', '1'].includes(headers['x-thinking-enabled'])) throw malformed('x-thinking-enabled');
        if (!['default', 'expert', 'vision'].includes(headers['x-model-type'])) throw malformed('x-model-type');
        const id = `file-${randomUUID()}`;
        const file = { id, name: Buffer.from(m[1], 'latin1').toString('utf8'), type: m[2], bytes, status: 'PENDING', polls: 0, forkOf: null };
        rec.account.files.set(id, file);
        rec.reply(200, biz({ id, status: 'PENDING', file_name: file.name, file_size: bytes.length }));
    }

    /** What a file becomes once it was looked at: fileEnd(file). */
    fileEnd = () => 'SUCCESS';

    files(rec) {
        const ids = (/^file_ids=(.+)$/.exec(rec.query ?? '')?.[1] ?? '').split(',');
        const files = ids.map((id) => rec.account.files.get(id));
        if (files.includes(undefined)) throw malformed(`file_ids ${rec.query}`);
        for (const file of files) if (++file.polls >= 2) file.status = this.fileEnd(file);
        rec.reply(200, biz({ files: files.map(({ id, name, status }) => ({ id, file_name: name, status })) }));
    }

    fork(rec) {
        const { file_id: from, to_model_type: type } = members(this.json(rec), { file_id: 'string', to_model_type: 'string' });
        const file = rec.account.files.get(from);
        if (!file || type !== 'vision') throw malformed('fork');
        if (!['SUCCESS', 'CONTENT_EMPTY'].includes(file.status)) throw malformed(`a file is forked while it is ${file.status}`);
        const id = `file-${randomUUID()}`;
        rec.account.files.set(id, { ...file, id, status: 'PENDING', polls: 0, forkOf: from });
        rec.reply(200, biz({ id, status: 'PENDING' }));
    }

    // --- serving ---

    routes = {
        'POST /api/v0/users/login': [this.login, { anonymous: true }],
        'GET /api/v0/users/current': [this.current],
        'GET /api/v0/users/feature_quota': [this.quota],
        'POST /api/v0/chat_session/create': [this.create],
        'POST /api/v0/chat_session/delete': [this.remove],
        'POST /api/v0/chat/create_pow_challenge': [this.challenge],
        'POST /api/v0/chat/completion': [this.question],
        'POST /api/v0/chat/continue': [this.goOn],
        'POST /api/v0/chat/stop_stream': [this.stop],
        'POST /api/v0/file/upload_file': [this.upload, { upload: true }],
        'POST /api/v0/file/fork_file_task': [this.fork],
        'GET /api/v0/file/fetch_files': [this.files],
    };

    async serve(req, res) {
        const [path, query] = req.url.split('?');
        const rec = { fake: this, req, res, method: req.method, path, query, headers: req.headers, rawHeaders: req.rawHeaders, bytes: Buffer.alloc(0), json: null, account: null, at: performance.now(), isGone: false };
        rec.gone = new Promise((done) => {
            res.on('close', () => {
                rec.isGone = !res.writableFinished;
                done();
            });
        });
        rec.reply = (status, body, headers = {}) => {
            res.writeHead(status, { 'content-type': typeof body === 'string' ? 'text/plain' : 'application/json', ...headers });
            res.end(typeof body === 'string' ? body : JSON.stringify(body));
        };
        rec.openStream = () => {
            res.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' });
            res.flushHeaders();
            return new StreamWriter(rec, this.split);
        };
        try {
            const pieces = [];
            for await (const piece of req) pieces.push(piece);
            rec.bytes = Buffer.concat(pieces);
            this.requests.push(rec);
            if (this.latencyMs > 0) await sleep(this.latencyMs);
            const route = this.routes[`${req.method} ${path}`];
            if (!route) throw new Refusal(`no route ${req.method} ${path}`, { status: 404, body: { detail: 'Not Found' } });
            this.checkHeaders(rec, route[1]);
            const behave = this.behaviours.get(path)?.(rec.account, rec);
            if (behave) await behave(rec);
            else await route[0].call(this, rec);
        } catch (error) {
            if (!(error instanceof Refusal)) {
                if (req.socket.destroyed) return;
                throw error;
            }
            if (!error.expected) this.refusals.push({ path, status: error.status, what: error.message });
            rec.reply(error.status, error.body, error.headers);
        }
    }

    close() {
        for (const socket of this.sockets) socket.destroy();
        return new Promise((done) => this.server.close(done));
    }
}

/**
 * options: accounts, generation, split (bytes per packet), difficulty, cap (streams of an account at once), latencyMs (of every call), nested (the newer
 * shape of a conversation's id), client (headers), strict (false: refusals do not fail the test).
 */
export async function startFakeDeepseek(t, options = {}) {
    const fake = new FakeDeepseek({ accounts: [userToken('one'), userToken('two')], ...options });
    await new Promise((done) => fake.server.listen(0, '127.0.0.1', done));
    fake.port = fake.server.address().port;
    atEnd(t, async () => {
        await fake.close();
        if (options.strict !== false && fake.refusals.length > 0) throw new Error(`the fake deepseek refused: ${JSON.stringify(fake.refusals)}`);
        if (fake.overCap.length > 0) throw new Error(`too many streams of an account: ${JSON.stringify(fake.overCap)}`);
    });
    return fake;
}
