// A strict www.genspark.ai: both ask dialects as event streams, projects that belong to an account, pictures and videos as jobs, uploads, the small
// calls about an account; and an operator's verification service. Written from the protocol notes.
import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLIENT_KEY, atEnd, makeDir } from './gateway.mjs';
import { NOT_LOGIN, say, spaced, StreamWriter } from './genspark_say.mjs';

export { say };

/** A session cookie's value of the right shape. */
export function session(n = 1) {
    return `5b0c1c3e-7f5a-4c7e-9d1b-${String(n).padStart(12, '0')}`;
}

const CHROME = /^Mozilla\/5\.0 \([^)]+\) AppleWebKit\/537\.36 \(KHTML, like Gecko\) Chrome\/\d+(\.\d+){3} Safari\/537\.36$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

class Refusal extends Error {
    constructor(status, what, body) {
        super(what);
        this.status = status;
        this.body = body ?? { detail: [{ msg: what }] };
    }
}

const wrong = (what) => new Refusal(422, what);

const AGENT_MEMBERS = {
    ai_chat_model: 'string',
    ai_chat_enable_search: 'boolean',
    ai_chat_disable_personalization: 'boolean',
    use_moa_proxy: 'boolean',
    moa_models: 'strings',
    models: 'strings',
    writingContent: 'null',
    type: 'string',
    project_id: 'string?',
    messages: 'messages',
    user_s_input: 'string',
    g_recaptcha_token: 'string',
    is_private: 'boolean',
    push_token: 'string',
    session_state: 'object',
};
const AGENT_OPTIONAL = ['models', 'session_state'];

function typeOf(value) {
    if (value === null) return 'null';
    return Array.isArray(value) ? 'array' : typeof value;
}

function checkMembers(json, members, optional, what) {
    if (typeOf(json) !== 'object') throw wrong(`${what} is no object`);
    for (const name of Object.keys(json)) if (!Object.hasOwn(members, name)) throw wrong(`${what}: unknown member ${name}`);
    for (const [name, type] of Object.entries(members)) {
        if (!Object.hasOwn(json, name)) {
            if (optional.includes(name)) continue;
            throw wrong(`${what}: no member ${name}`);
        }
        const is = typeOf(json[name]);
        const fine =
            type === 'string?' ? is === 'string' || is === 'null'
            : type === 'strings' ? is === 'array' && json[name].every((x) => typeof x === 'string' && x !== '')
            : type === 'messages' ? is === 'array'
            : is === type;
        if (!fine) throw wrong(`${what}: ${name} is ${is}, not ${type}`);
    }
}

const textOf = (content) => (typeof content === 'string' ? content : content.filter((p) => p.type === 'text').map((p) => p.text).join('\n'));

export const IMAGE_BYTES = Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 1, 2, 3]);
const IMAGES = [Buffer.from([0x89, 0x50, 0x4e, 0x47]), Buffer.from([0xff, 0xd8, 0xff]), Buffer.from('GIF8'), Buffer.from('RIFF')];

/** A message's content: a string, or pictures and files first and one text behind them. */
function checkContent(content, what, files) {
    if (typeof content === 'string') {
        if (content === '') throw wrong(`${what} is empty`);
        return;
    }
    if (!Array.isArray(content) || content.length === 0) throw wrong(`${what} is neither text nor parts`);
    for (const [i, part] of content.entries()) {
        if (part.type === 'text') {
            if (i !== content.length - 1 || typeof part.text !== 'string' || part.text === '') throw wrong(`${what}: the text is not its last part`);
        } else if (part.type === 'image_url') {
            const m = /^data:image\/jpeg;base64,([A-Za-z0-9+/]+={0,2})$/.exec(part.image_url?.url ?? '');
            if (!m || Object.keys(part.image_url).join() !== 'url') throw wrong(`${what}: image_url ${String(part.image_url?.url).slice(0, 60)}`);
            const bytes = Buffer.from(m[1], 'base64');
            if (!IMAGES.some((magic) => bytes.subarray(0, magic.length).equals(magic))) throw wrong(`${what}: no picture`);
        } else if (part.type === 'private_file') {
            const { name, type, size, ext, private_storage_url } = part.private_file ?? {};
            const file = files.get(private_storage_url);
            if (!file?.bytes) throw wrong(`${what}: ${private_storage_url} was not uploaded`);
            if (name !== 'file' || size !== file.bytes.length || ext !== type.split('/')[1]) throw wrong(`${what}: private_file ${JSON.stringify(part.private_file)}`);
        } else {
            throw wrong(`${what}: part ${part.type}`);
        }
        if (Object.keys(part).sort().join() !== ['type', part.type].sort().join()) throw wrong(`${what}: members ${Object.keys(part)}`);
    }
}

class FakeGenspark {
    constructor({ sessions, split = Infinity, cap = 2, verifier = null, credits = 100 }) {
        Object.assign(this, { sessions, split, cap, verifier });
        this.forbidden = [CLIENT_KEY];
        this.requests = [];
        this.refusals = [];
        this.projects = new Map(); // id -> {session, type, deleted}
        this.asking = new Map(); // session -> questions that are being answered
        this.most = new Map(); // session -> the most of them at once
        this.files = new Map(); // handle -> {bytes}
        this.tasks = new Map(); // id -> {kind, polls, plan}
        this.credits = new Map(sessions.map((s) => [s, credits]));
        this.setCookie = null;
        this.slowDelete = this.slowCreate = this.failDeletes = 0;
        this.cookies = null; // names and values that have to be sent besides session_id
        this.inOrder = [];
        this.fallback = say.answer();
        this.choose = null;
        // of the jobs that begin now: questions until they are over, how they end, where the result is, which model is named
        this.media = { polls: 1, outcome: 'SUCCESS', url: (id) => `/api/files/s/${id}?cache_control=3600`, model: null, count: 1, prefix: true };
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

    /** The next questions are answered so; afterwards `always`. */
    next(...behaviours) {
        this.inOrder.push(...behaviours);
    }

    always(behave) {
        this.fallback = behave;
    }

    /** choose(session, rec) -> a behaviour, or null: the ones of next() and always(). */
    onAsk(choose) {
        this.choose = choose;
    }

    of(path) {
        return this.requests.filter((rec) => rec.path === path);
    }

    /** Questions, in both dialects. */
    get asks() {
        return this.requests.filter((rec) => rec.dialect);
    }

    undeleted() {
        return [...this.projects.entries()].filter(([, p]) => !p.deleted).map(([id]) => id);
    }

    checkCommon(rec, accept, { origin = true } = {}) {
        const { headers } = rec;
        for (const text of this.forbidden)
            if (rec.url.includes(text) || rec.rawHeaders.some((h) => h.includes(text)) || rec.text.includes(text)) throw wrong(`leak: ${text}`);
        for (const name of ['authorization', 'expect', 'x-api-key', 'x-forwarded-for', 'forwarded', 'via', 'proxy-authorization', 'te', 'x-request-id'])
            if (name in headers) throw wrong(`leak: the header ${name} came through`);
        if (!headers['user-agent']) throw new Refusal(400, 'no User-Agent', 'bad request cf');
        if (!CHROME.test(headers['user-agent'])) throw wrong(`User-Agent: ${headers['user-agent']}`);
        if (headers.host !== (this.host ?? `127.0.0.1:${this.port}`)) // host: of what stands in front of us
            throw wrong(`Host: ${headers.host}`);
        if (headers.accept !== accept) throw wrong(`Accept: ${headers.accept}`);
        if (headers['content-type'] !== 'application/json') throw wrong(`Content-Type: ${headers['content-type']}`);
        if (origin && headers.origin !== 'https://www.genspark.ai') throw wrong(`Origin: ${headers.origin}`);
        rec.session = this.session(headers);
    }

    session(headers) {
        const jar = new Map();
        for (const pair of (headers.cookie ?? '').split('; ')) {
            const at = pair.indexOf('=');
            if (jar.has(pair.slice(0, at))) throw wrong(`two cookies ${pair.slice(0, at)}`);
            jar.set(pair.slice(0, at), pair.slice(at + 1));
        }
        const name = jar.get('session_id');
        if (!this.sessions.includes(name)) throw new Refusal(401, 'not login', NOT_LOGIN);
        for (const [key, value] of Object.entries(this.cookies ?? {})) if (jar.get(key) !== value) throw wrong(`cookie ${key} is ${jar.get(key)}, not ${value}`);
        return name;
    }

    checkReferer(rec, pages) {
        const { referer } = rec.headers;
        if (!pages.some((page) => referer === `https://www.genspark.ai${page}`)) throw wrong(`Referer: ${referer}, not one of ${pages}`);
    }

    checkTrace({ headers }) {
        if (!('request-id' in headers) && !('traceparent' in headers)) return;
        const id = /^\|([0-9a-f]{32})\.([0-9a-f]{16})$/.exec(headers['request-id'] ?? '');
        const trace = /^00-([0-9a-f]{32})-([0-9a-f]{16})-01$/.exec(headers.traceparent ?? '');
        if (!id || !trace || id[1] !== trace[1] || id[2] !== trace[2]) throw wrong(`request-id ${headers['request-id']}, traceparent ${headers.traceparent}`);
    }

    checkToken(token, required) {
        if (!this.verifier) {
            if (token) throw wrong(`a token ${token} from nowhere`);
            return;
        }
        if (!token && !required) return;
        if (!this.verifier.issued.delete(token)) throw wrong(`token ${token} was not issued, or used before`);
    }

    parse(rec) {
        try {
            rec.json = JSON.parse(rec.text);
        } catch {
            throw wrong('not JSON');
        }
        return rec.json;
    }

    /** The project a question belongs to: an existing one of this account, or a new one. */
    enterProject(rec, id, type) {
        if (id === null) {
            rec.project = randomUUID();
            this.projects.set(rec.project, { session: rec.session, type, deleted: false });
            return true;
        }
        const project = this.projects.get(id);
        if (!project || project.deleted) throw new Refusal(500, `no project ${id}`, 'Internal Server Error');
        rec.project = id;
        return project.session === rec.session;
    }

    /** Counts the account's questions until rec.over() or the end of the connection. */
    enterAsk(rec) {
        const now = (this.asking.get(rec.session) ?? 0) + 1;
        this.asking.set(rec.session, now);
        this.most.set(rec.session, Math.max(now, this.most.get(rec.session) ?? 0));
        let open = true;
        rec.over = () => {
            if (open) this.asking.set(rec.session, this.asking.get(rec.session) - 1);
            open = false;
        };
        rec.res.on('close', rec.over);
        if (now > this.cap) throw new Refusal(429, `${now} questions at once of one account`, 'You are sending requests too quickly');
    }

    async agentAsk(rec) {
        rec.dialect = 'agent';
        this.checkCommon(rec, 'text/event-stream');
        this.checkTrace(rec);
        if (rec.query !== undefined) throw wrong(`query: ${rec.query}`);
        const json = this.parse(rec);
        if (/_generation_agent$/.test(json.type)) return this.agentMedia(rec, json);
        checkMembers(json, AGENT_MEMBERS, AGENT_OPTIONAL, 'body');
        if (json.type !== 'ai_chat') throw wrong(`type ${json.type}`);
        if (json.push_token !== '') throw wrong('push_token');
        this.checkReferer(rec, json.project_id === null ? ['/agents?type=ai_chat'] : [`/agents?id=${json.project_id}`]);
        this.checkAgentMessages(json.messages);
        const last = json.messages.findLast((m) => m.role === 'user');
        if (json.user_s_input !== (last ? textOf(last.content) : '')) throw wrong(`user_s_input: ${json.user_s_input}`);
        if ('session_state' in json && JSON.stringify(json.session_state) !== JSON.stringify({ steps: [], messages: json.messages })) throw wrong('session_state');
        if (json.use_moa_proxy !== 'models' in json) throw wrong('models and use_moa_proxy');
        if (json.use_moa_proxy && (json.models.join() !== json.moa_models.join() || json.ai_chat_model !== json.models[0])) throw wrong(`mixture ${json.models}`);
        if (!json.use_moa_proxy && json.moa_models.length > 0) throw wrong('moa_models');
        this.checkToken(json.g_recaptcha_token);
        rec.model = json.ai_chat_model;
        const own = this.enterProject(rec, json.project_id, 'ai_chat');
        this.enterAsk(rec);
        if (!own) return say.answer({ pieces: [''] })(rec);
        await (this.choose?.(rec.session, rec) ?? this.inOrder.shift() ?? this.fallback)(rec);
    }

    checkAgentMessages(messages) {
        const ids = new Set();
        if (messages.length === 0) throw wrong('no messages');
        for (const [i, message] of messages.entries()) {
            const what = `messages[${i}]`;
            if (Object.keys(message).sort().join() !== 'content,id,role') throw wrong(`${what}: members ${Object.keys(message)}`);
            if (!['system', 'user', 'assistant'].includes(message.role)) throw wrong(`${what}: role ${message.role}`);
            if (!UUID.test(message.id) || ids.has(message.id)) throw wrong(`${what}: id ${message.id}`);
            ids.add(message.id);
            checkContent(message.content, what, this.files);
        }
    }

    async copilotAsk(rec) {
        rec.dialect = 'copilot';
        this.checkCommon(rec, 'text/event-stream');
        this.checkReferer(rec, ['/']);
        if (rec.query !== undefined) throw wrong(`query: ${rec.query}`);
        const json = this.parse(rec);
        if (json.type !== 'COPILOT_MOA_CHAT') return this.copilotMedia(rec, json);
        checkMembers(json, { type: 'string', current_query_string: 'string', messages: 'messages', action_params: 'object', extra_data: 'object', g_recaptcha_token: 'string' }, ['g_recaptcha_token'], 'body');
        const query = /^(?:id=([^&]+)&)?type=COPILOT_MOA_CHAT$/.exec(json.current_query_string);
        if (!query) throw wrong(`current_query_string ${json.current_query_string}`);
        if (Object.keys(json.action_params).length > 0) throw wrong('action_params');
        checkMembers(json.extra_data, { models: 'strings', run_with_another_model: 'boolean', writingContent: 'null', request_web_knowledge: 'boolean' }, [], 'extra_data');
        if (json.extra_data.run_with_another_model) throw wrong('run_with_another_model');
        for (const [i, message] of json.messages.entries()) {
            if (Object.keys(message).sort().join() !== 'content,is_prompt,role,session_state') throw wrong(`messages[${i}]: members ${Object.keys(message)}`);
            if (!['system', 'user', 'assistant'].includes(message.role)) throw wrong(`messages[${i}]: role ${message.role}`);
            if (message.is_prompt !== false) throw wrong(`messages[${i}]: is_prompt`);
            checkContent(message.content, `messages[${i}]`, this.files);
        }
        // without a binding the site reads the last question only
        if (!query[1] && (json.messages.length !== 1 || json.messages[0].role !== 'user')) throw wrong('a new chat has one user message');
        this.checkToken(json.g_recaptcha_token);
        rec.model = json.extra_data.models[0];
        const own = this.enterProject(rec, query[1] ?? null, 'copilot');
        this.enterAsk(rec);
        if (!own) return say.sentence('')(rec);
        await (this.choose?.(rec.session, rec) ?? this.inOrder.shift() ?? this.fallback)(rec);
    }

    /** Jobs for a question: ids, which the other calls tell about. */
    beginJobs(rec, kind, count) {
        return Array.from({ length: count }, () => {
            const id = randomUUID();
            this.tasks.set(id, { ...this.media, kind, session: rec.session, model: this.media.model ?? rec.model, prompt: rec.json.user_s_input });
            return id;
        });
    }

    jobState(id) {
        const job = this.tasks.get(id);
        if (job.polls-- > 0) return { id, status: 'RUNNING', model: job.model };
        const names = job.kind === 'video' ? ['video_urls', 'video_urls_nowatermark'] : ['image_urls', 'image_urls_nowatermark'];
        if (!['SUCCESS', 'COMPLETED'].includes(job.outcome)) return { id, status: job.outcome, model: job.model, [names[0]]: [] };
        return { id, status: job.outcome, model: job.model, [names[0]]: [`${this.base}/marked/${id}`], [names[1]]: [job.url(id)], image_ratios: ['1024/1024'] };
    }

    async agentMedia(rec, json) {
        const kind = /^(image|video)_generation_agent$/.exec(json.type)?.[1];
        if (!kind) throw wrong(`type ${json.type}`);
        checkMembers(json, { type: 'string', project_id: 'string', messages: 'messages', model_params: 'object', user_s_input: 'string', g_recaptcha_token: 'string', is_private: 'boolean', push_token: 'string' }, [], 'body');
        this.checkReferer(rec, [`/agents?id=${json.project_id}`]);
        if (json.messages.length !== 1 || json.messages[0].role !== 'user') throw wrong('one message of the user');
        this.checkAgentMessages(json.messages);
        if (json.user_s_input !== textOf(json.messages[0].content)) throw wrong('user_s_input');
        const params = json.model_params;
        const common = { type: 'string', model: 'string', aspect_ratio: 'string', auto_prompt: 'boolean', generation_count: 'number' };
        if (kind === 'image') checkMembers(params, { ...common, style: 'string', image_size: 'string', quality: 'string', background_mode: 'string', camera_control: 'null' }, [], 'model_params');
        else checkMembers(params, { ...common, duration: 'number' }, [], 'model_params');
        if (params.type !== kind || !/^(auto|[0-9]+:[0-9]+)$/.test(params.aspect_ratio) || params.generation_count < 1) throw wrong(`model_params ${JSON.stringify(params)}`);
        this.checkToken(json.g_recaptcha_token);
        rec.model = params.model;
        if (!this.enterProject(rec, json.project_id, kind)) throw new Refusal(500, 'the project is another account’s', 'Internal Server Error');
        this.enterAsk(rec);
        const behave = this.choose?.(rec.session, rec) ?? this.inOrder.shift();
        if (behave) return behave(rec);
        const ids = this.beginJobs(rec, kind, params.generation_count);
        const w = rec.openStream();
        await w.start();
        await w.begin();
        await w.field('tool_calls[0]', { function: { name: 'generate', arguments: null }, type: 'function', id: 'tooluse_1' });
        await w.field(`${kind}_generation_agent.results`, ids.map((id) => ({ task_id: id, status: 'PENDING', model: rec.model, image_size: 'auto', prompt: json.user_s_input, image_urls: [], image_urls_nowatermark: [] })));
        await w.text('Here it is.');
        await w.result('Here it is.');
        await w.end();
    }

    async copilotMedia(rec, json) {
        const kind = { COPILOT_MOA_IMAGE: 'image', COPILOT_MOA_VIDEO: 'video' }[json.type];
        if (!kind) throw wrong(`type ${json.type}`);
        checkMembers(json, { type: 'string', current_query_string: 'string', messages: 'messages', user_s_input: 'string', action_params: 'object', extra_data: 'object', g_recaptcha_token: 'string' }, ['g_recaptcha_token'], 'body');
        const query = new RegExp(`^(?:id=([^&]+)&)?type=${json.type}$`).exec(json.current_query_string);
        if (!query) throw wrong(`current_query_string ${json.current_query_string}`);
        const [message] = json.messages;
        if (json.messages.length !== 1 || Object.keys(message).sort().join() !== 'content,role' || message.role !== 'user') throw wrong('one message of the user');
        checkContent(message.content, 'messages[0]', this.files);
        if (json.user_s_input !== textOf(message.content)) throw wrong('user_s_input');
        const extra = json.extra_data;
        if (kind === 'image') checkMembers(extra, { model_configs: 'array', llm_model: 'string', imageModelMap: 'object', writingContent: 'null' }, [], 'extra_data');
        else checkMembers(extra, { model_configs: 'array', imageModelMap: 'object' }, [], 'extra_data');
        if (extra.model_configs.length !== 1 || (kind === 'image' && extra.llm_model !== 'gpt-4o')) throw wrong('extra_data');
        const config = extra.model_configs[0];
        if (kind === 'image') checkMembers(config, { model: 'string', aspect_ratio: 'string', use_personalized_models: 'boolean', fashion_profile_id: 'null', hd: 'boolean', reflection_enabled: 'boolean', style: 'string' }, [], 'model_configs[0]');
        else checkMembers(config, { model: 'string', aspect_ratio: 'string', reflection_enabled: 'boolean', duration: 'number' }, [], 'model_configs[0]');
        this.checkToken(json.g_recaptcha_token);
        rec.model = config.model;
        this.enterProject(rec, query[1] ?? null, kind);
        this.enterAsk(rec);
        const behave = this.choose?.(rec.session, rec) ?? this.inOrder.shift();
        if (behave) return behave(rec);
        const ids = this.beginJobs(rec, kind, this.media.count);
        const w = rec.openStream();
        await w.start();
        await w.result(JSON.stringify({ [kind === 'image' ? 'generated_images' : 'generated_videos']: ids.map((task_id) => ({ task_id })) }));
        await w.end();
    }

    taskDetail(kind) {
        return (rec) => {
            this.checkCommon(rec, 'application/json');
            const id = /^task_id=([0-9a-f-]{36})$/.exec(rec.query ?? '')?.[1];
            const job = this.tasks.get(id);
            if (!job || job.kind !== kind || job.session !== rec.session) throw wrong(`no ${kind} ${rec.query}`);
            if (job.weak-- > 0) return say.status(502, 'bad gateway')(rec);
            say.status(200, { status: 0, data: this.jobState(id) })(rec);
        };
    }

    tasksStatus(kind) {
        return async (rec) => {
            this.checkCommon(rec, 'text/event-stream');
            const { task_ids } = this.parse(rec);
            if (!Array.isArray(task_ids) || Object.keys(rec.json).join() !== 'task_ids' || task_ids.some((id) => this.tasks.get(id)?.kind !== kind)) throw wrong(`task_ids ${rec.text}`);
            const prefix = this.tasks.get(task_ids[0]).prefix ? 'data: ' : '';
            rec.res.writeHead(200, { 'content-type': 'text/event-stream' });
            rec.res.write(`${prefix}${spaced({ type: 'TASKS_STATUS', progress: 0.5 })}\n\n`);
            await sleep(20);
            for (const id of task_ids) this.tasks.get(id).polls = 0;
            const final_status = Object.fromEntries(task_ids.map((id) => [id, this.jobState(id)]));
            const text = `${prefix}${spaced({ type: 'TASKS_STATUS_COMPLETE', final_status })}\n\n`;
            rec.res.write(text.slice(0, 30));
            await sleep(5);
            rec.res.end(text.slice(30));
        };
    }

    file(rec) {
        this.session(rec.headers);
        if (rec.headers.accept !== '*/*' || rec.query !== 'cache_control=3600') throw wrong(`file ${rec.url}`);
        rec.res.writeHead(200, { 'content-type': 'image/webp; charset=binary' });
        rec.res.end(IMAGE_BYTES);
    }

    uploadUrl(rec) {
        this.checkCommon(rec, 'application/json');
        const handle = `private://${randomUUID()}`;
        this.files.set(handle, { bytes: null });
        say.status(200, { status: 0, message: '', data: { upload_image_url: `${this.base}/blob/${encodeURIComponent(handle)}?sig=abc`, private_storage_url: handle } })(rec);
    }

    /** The storage: another host in the real world, so nothing of the site's may come along. */
    put(rec) {
        const { headers } = rec;
        for (const name of ['cookie', 'origin', 'referer', 'authorization']) if (name in headers) throw wrong(`${name} left the site`);
        if (headers['x-ms-blob-type'] !== 'BlockBlob' || headers['content-type'] !== 'application/octet-stream' || rec.query !== 'sig=abc') throw wrong('upload');
        const file = this.files.get(decodeURIComponent(rec.path.slice('/blob/'.length)));
        if (!file || file.bytes) throw wrong(`upload to ${rec.path}`);
        file.bytes = rec.bytes;
        rec.res.writeHead(201).end();
    }

    async create(rec) {
        this.checkCommon(rec, 'application/json');
        await sleep(this.slowCreate);
        this.checkReferer(rec, ['/agents?type=ai_chat']);
        const json = this.parse(rec);
        const empty = JSON.stringify({ type: 'ai_chat', name: '', session_state: { steps: [], messages: [] } });
        if (JSON.stringify(json) !== empty && JSON.stringify(json) !== '{"article":"# image"}') throw wrong(`create: ${rec.text}`);
        const id = randomUUID();
        this.projects.set(id, { session: rec.session, type: json.type ?? 'article', deleted: false });
        say.status(200, { status: 0, message: '', data: { id } })(rec);
    }

    abort(rec) {
        this.checkCommon(rec, 'application/json');
        const project = this.ownProject(rec);
        project.aborted = true;
        say.status(200, { status: 0, message: '', data: {} })(rec);
    }

    async remove(rec) {
        this.checkCommon(rec, 'application/json');
        await sleep(this.slowDelete);
        const project = this.ownProject(rec);
        if (this.failDeletes > 0) {
            this.failDeletes--;
            return say.status(503, 'busy')(rec);
        }
        if (project.kept) throw wrong('a chat of somebody was deleted');
        project.deleted = true;
        say.status(200, { status: 0, message: '', data: {} })(rec);
    }

    ownProject(rec) {
        const m = /^project_id=([0-9a-f-]{36})$/.exec(rec.query ?? '');
        const project = m && this.projects.get(m[1]);
        if (!project || project.session !== rec.session || project.deleted) throw new Refusal(500, `no project: ${rec.query}`, 'Internal Server Error');
        return project;
    }

    isLogin(rec) {
        this.checkCommon(rec, 'application/json');
        say.status(200, { status: 0, message: '', data: { is_login: true, cogen_id: 'c', cogen_name: 'n', cogen_email: 'somebody@example.com' } })(rec);
    }

    billing(rec) {
        this.checkCommon(rec, 'application/json');
        const left = this.credits.get(rec.session);
        say.status(200, { status: 0, data: { remaining: typeof left === 'function' ? left() : left } })(rec);
    }

    async serve(req, res) {
        const [path, query] = req.url.split('?');
        const rec = { req, res, method: req.method, url: req.url, path, query, headers: req.headers, rawHeaders: req.rawHeaders, text: '', json: null, session: null, dialect: null, isGone: false, over: () => {} };
        rec.gone = new Promise((done) => {
            res.on('close', () => {
                if (!res.writableFinished) rec.isGone = true;
                done();
            });
        });
        rec.openStream = () => {
            res.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' });
            res.flushHeaders();
            return new StreamWriter(rec, this.split);
        };
        try {
            const pieces = [];
            for await (const piece of req) pieces.push(piece);
            rec.bytes = Buffer.concat(pieces);
            rec.text = rec.bytes.toString('utf8');
            this.requests.push(rec);
            for (const cookie of this.setCookie?.(rec) ?? []) res.appendHeader('set-cookie', cookie);
            const route = /^\/api\/files\/s\/[0-9a-f-]{36}$/.test(path) ? this.file : req.method === 'PUT' && path.startsWith('/blob/') ? this.put : this.routes()[`${req.method} ${path}`];
            if (!route) throw new Refusal(404, `no route ${req.method} ${path}`);
            await route.call(this, rec);
        } catch (error) {
            if (!(error instanceof Refusal)) {
                if (req.socket.destroyed) return;
                throw error;
            }
            this.refusals.push({ status: error.status, what: error.message, path });
            rec.over();
            say.status(error.status, error.body)(rec);
        }
    }

    routes() {
        return {
            'POST /api/agent/ask_proxy': this.agentAsk,
            'POST /api/copilot/ask': this.copilotAsk,
            'GET /api/get_upload_personal_image_url': this.uploadUrl,
            'POST /api/project/create': this.create,
            'POST /api/agent/ask_abort': this.abort,
            'GET /api/project/delete': this.remove,
            'GET /api/spark/image_generation_task_detail': this.taskDetail('image'),
            'GET /api/spark/video_generation_task_detail': this.taskDetail('video'),
            'POST /api/ig_tasks_status': this.tasksStatus('image'),
            'POST /api/vg_tasks_status': this.tasksStatus('video'),
            'GET /api/is_login': this.isLogin,
            'GET /api/credit_audit/billing_cycle': this.billing,
        };
    }

    close() {
        for (const socket of this.sockets) socket.destroy();
        return new Promise((done) => this.server.close(done));
    }
}

/**
 * options: sessions (valid cookies), split (bytes a packet), cap (questions at once of one account), verifier (of startVerifier),
 * strict (false: refusals do not fail the test).
 */
export async function startFakeGenspark(t, options = {}) {
    const fake = new FakeGenspark({ sessions: [session(1), session(2)], ...options });
    await new Promise((done) => fake.server.listen(0, '127.0.0.1', done));
    fake.port = fake.server.address().port;
    atEnd(t, async () => {
        await fake.close();
        if (options.strict !== false && fake.refusals.length > 0) throw new Error(`the fake genspark refused: ${JSON.stringify(fake.refusals.slice(0, 5))}`);
    });
    return fake;
}

/** A host of its own, for what everybody may open. */
export async function startPublicHost(t) {
    const host = { requests: [] };
    const server = http.createServer((req, res) => {
        host.requests.push({ url: req.url, headers: req.headers });
        const leaks = ['cookie', 'origin', 'referer', 'authorization'].some((name) => name in req.headers);
        res.writeHead(leaks ? 400 : /gone/.test(req.url) ? 404 : 200, { 'content-type': 'image/png' });
        res.end(IMAGE_BYTES);
    });
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    host.base = `http://127.0.0.1:${server.address().port}`;
    atEnd(t, () => new Promise((done) => (server.closeAllConnections(), server.close(done))));
    return host;
}

function selfSigned() {
    const dir = makeDir();
    const [key, cert] = [join(dir, 'key'), join(dir, 'cert')];
    const made = spawnSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-keyout', key, '-out', cert, '-subj', '/CN=verifier'], { encoding: 'utf8' });
    if (made.status !== 0) throw new Error(`openssl: ${made.error ?? made.stderr}`);
    return { key: readFileSync(key), cert: readFileSync(cert) };
}

/** The operator's verification service: GET /genspark gives a token for each question. `answer` replaces what it says. tls: with a certificate that signs itself. */
export async function startVerifier(t, { tls = false } = {}) {
    const verifier = { issued: new Set(), asked: [], answer: null };
    const server = (tls ? https.createServer(selfSigned()) : http.createServer()).on('request', (req, res) => {
        verifier.asked.push({ method: req.method, url: req.url, headers: req.headers });
        const token = `03AF${randomUUID()}`;
        let [status, body] = verifier.answer ?? [200, { code: 200, token, message: 'ok' }];
        if (req.method !== 'GET' || req.url !== '/genspark' || req.headers['content-type'] !== 'application/json' || !/session_id=/.test(req.headers.cookie ?? '')) [status, body] = [400, { code: 400, message: 'malformed' }];
        if (body.token) verifier.issued.add(body.token);
        res.writeHead(status, { 'content-type': 'application/json' });
        res.end(typeof body === 'string' ? body : JSON.stringify(body));
    });
    await new Promise((done) => server.listen(0, '127.0.0.1', done));
    verifier.url = `${tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}`;
    atEnd(t, () => new Promise((done) => (server.closeAllConnections(), server.close(done))));
    return verifier;
}
