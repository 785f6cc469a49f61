// Starts the real gateway binary for one test: own directory, own port, clean environment, and a log that is
// printed when the test fails.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

export const binary = resolve(root, process.env.CHATMUX_BIN ?? 'build/release/chatmux');

/** A sanitizer build is slower, needs more memory and does not bear LD_PRELOAD. */
export const sanitized = existsSync(binary) && readFileSync(binary).includes('__asan_init');

const SANITIZER_REPORT = /ERROR: \w+Sanitizer|SUMMARY: \w+Sanitizer|runtime error:/;

/** The key that clients of `startGateway` show unless the test says otherwise. */
export const CLIENT_KEY = 'sk-test-client-key-4711';

const started = new Set();

/** node:test's `test`, which prints the logs of the gateways a failing test has started. */
export function scenario(name, options, fn) {
    if (typeof options === 'function') [options, fn] = [{}, options];
    return test(name, { timeout: 60_000, ...options }, async (t) => {
        const before = new Set(started);
        const print = () => {
            for (const gw of started) if (!before.has(gw)) t.diagnostic(`log of ${gw.name}:\n${gw.logTail()}`);
        };
        t.signal.addEventListener('abort', print, { once: true });
        try {
            await fn(t);
        } catch (error) {
            print();
            throw error;
        } finally {
            t.signal.removeEventListener('abort', print);
        }
    });
}

const cleanups = new WeakMap();

/** Runs `fn` when the test ends, the latest first: clients leave before their gateway stops, and it before its fakes. */
export function atEnd(t, fn) {
    if (!cleanups.has(t)) {
        const stack = [];
        cleanups.set(t, stack);
        t.after(async () => {
            const errors = [];
            while (stack.length > 0) {
                try {
                    await stack.pop()();
                } catch (error) {
                    errors.push(error);
                }
            }
            if (errors.length > 0) throw errors[0];
        });
    }
    cleanups.get(t).push(fn);
}

/** `await until(() => condition, 'what we wait for')`; returns the first truthy value. */
export async function until(condition, what, timeoutMs = 5000) {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
        const value = await condition();
        if (value) return value;
        if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms for: ${what}`);
        await sleep(10);
    }
}

// Ports below the ephemeral range, a hundred for each test process: what the kernel hands out to outgoing
// connections cannot take one between our check and the gateway's bind.
let nextPort = 12_000 + (process.pid % 180) * 100;

export async function freePort() {
    for (;;) {
        const port = nextPort++;
        const free = await new Promise((done) => {
            const probe = net.createServer().once('error', () => done(false));
            probe.listen(port, '127.0.0.1', () => probe.close(() => done(true)));
        });
        if (free) return port;
    }
}

/** {section: {key: value | list | null}} -> INI text; null leaves the key out. */
export function toIni(config) {
    const lines = [];
    for (const [section, keys] of Object.entries(config)) {
        lines.push(`[${section}]`);
        for (const [key, value] of Object.entries(keys)) {
            if (value === null || value === undefined) continue;
            if (Array.isArray(value)) lines.push(`${key} =`, ...value.map((item) => `  ${item}`));
            else lines.push(`${key} = ${value}`);
        }
        lines.push('');
    }
    return lines.join('\n');
}

const dirs = [];
process.on('exit', () => dirs.forEach((dir) => rmSync(dir, { recursive: true, force: true })));

/** A directory of its own, gone when the test process ends. */
export function makeDir() {
    dirs.push(mkdtempSync(join(tmpdir(), 'chatmux-e2e-')));
    return dirs.at(-1);
}

/** What the gateway sees of our environment: nothing that could change its behaviour. */
export function cleanEnv(dir, extra = {}) {
    const env = {
        PATH: process.env.PATH,
        HOME: dir,
        LANG: 'C.UTF-8',
        ASAN_OPTIONS: 'detect_leaks=1:exitcode=97',
        UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1:exitcode=97',
    };
    for (const name of ['LD_LIBRARY_PATH', 'LSAN_OPTIONS', 'ASAN_SYMBOLIZER_PATH'])
        if (process.env[name]) env[name] = process.env[name];
    return { ...env, ...extra };
}

/** Runs a command of the binary to its end: {code, stdout, stderr, out}. */
export function runCommand(args, { dir = tmpdir(), env = {}, timeout = 15_000 } = {}) {
    const r = spawnSync(binary, args, { cwd: dir, env: cleanEnv(dir, env), encoding: 'utf8', timeout });
    if (r.error) throw r.error;
    if (SANITIZER_REPORT.test(r.stderr)) throw new Error(`sanitizer report:\n${r.stderr}`);
    return { code: r.status, stdout: r.stdout, stderr: r.stderr, out: r.stdout + r.stderr };
}

class Gateway {
    constructor(options) {
        this.options = options;
        this.name = options.name ?? 'gateway';
        this.dir = makeDir();
        this.file = join(this.dir, 'chatmux.ini');
        this.output = '';
        this.exit = null; // {code, signal} once the process has ended
    }

    get url() {
        return `http://127.0.0.1:${this.port}`;
    }

    get pid() {
        return this.child.pid;
    }

    /** The base URL for SDKs. */
    get base() {
        return `${this.url}/v1`;
    }

    /** The whole configuration: the test's sections over what every test needs. */
    configText(config) {
        if (typeof config === 'function') config = config(this);
        if (typeof config === 'string') return config;
        const { server = {}, auth = {}, store = {}, log = {}, ...rest } = config;
        return toIni({
            server: { listen: `127.0.0.1:${this.port}`, ...server },
            auth: { keys: [CLIENT_KEY], ...auth },
            store: { state_dir: join(this.dir, 'state'), ...store },
            log: { level: 'debug', format: 'json', ...log },
            ...rest,
        });
    }

    writeConfig(config) {
        writeFileSync(this.file, this.configText(config));
    }

    async start() {
        if (!existsSync(binary)) throw new Error(`${binary} is not there: build it with "make"`);
        mkdirSync(join(this.dir, 'state'));
        this.options.prepare?.(this);
        started.add(this);
        for (let attempt = 0; !(await this.tryStart()); attempt++) if (attempt === 3) throw new Error(this.logTail());
        return this;
    }

    /** Stops it as an operator would and starts it anew on the same directory. `how` SIGKILL: it gets no chance to tidy up. */
    async restart({ how = 'SIGTERM' } = {}) {
        if (how === 'SIGKILL') {
            this.signal('SIGKILL');
            await this.waitExit(5000);
        } else {
            await this.stop();
        }
        while (!(await this.tryStart()));
    }

    /** False when another process has taken the port between our look and the gateway's bind. */
    async tryStart() {
        const { config = {}, args = [], env = {}, launcher = () => [], seed } = this.options;
        this.port = await freePort();
        this.exit = null;
        if (!seed) this.writeConfig(config);
        const [program, ...before] = [...launcher(this), binary];
        this.child = spawn(program, [...before, 'serve', ...(seed ? [] : ['-c', this.file]), ...args], {
            cwd: this.dir,
            env: seed ? { ...seed, PORT: String(this.port) } : cleanEnv(this.dir, env),
            stdio: ['ignore', 'pipe', 'pipe'],
        });
        for (const stream of [this.child.stdout, this.child.stderr]) {
            stream.setEncoding('utf8');
            stream.on('data', (text) => (this.output += text));
        }
        this.exited = new Promise((done) => {
            this.child.once('error', (error) => (this.output += `cannot start: ${error.message}\n`));
            this.child.once('close', (code, signal) => done((this.exit = { code, signal })));
        });
        await until(
            async () => this.exit || (await probe(this.options.readyTarget?.(this) ?? { port: this.port })) === 200,
            `${this.name} to be ready`,
            15_000,
        );
        if (this.exit?.code === 2 && /in use/.test(this.output)) return false;
        if (this.exit) throw new Error(`the gateway ended at start (${this.exit.code})\n${this.logTail()}`);
        return true;
    }

    /** The end of the log; all of a sanitizer's report, when there is one. */
    logTail(lines = 60) {
        const report = SANITIZER_REPORT.exec(this.output);
        return report ? this.output.slice(report.index).slice(0, 6000) : this.output.split('\n').slice(-lines).join('\n');
    }

    checkSanitizer() {
        if (SANITIZER_REPORT.test(this.output)) throw new Error(`sanitizer report:\n${this.logTail()}`);
    }

    /** The log lines in JSON format; other lines are left out. */
    logLines() {
        return this.output.split('\n').flatMap((line) => {
            try {
                return line.startsWith('{') ? [JSON.parse(line)] : [];
            } catch {
                return [];
            }
        });
    }

    /** The access lines, without those of whoever waits for the gateway to be ready. */
    accessLines() {
        return this.logLines().filter((line) => line.module === 'access' && line.path !== '/readyz');
    }

    /** The access line of one request id, which may be written a little after the answer. */
    accessLine(id) {
        return until(() => this.accessLines().find((line) => line.id === id), `the access line of ${id}`);
    }

    waitLog(pattern, what = String(pattern), timeoutMs = 5000) {
        return until(() => pattern.test(this.output), `the log to say ${what}`, timeoutMs);
    }

    signal(name) {
        process.kill(this.pid, name);
    }

    /** SIGTERM; the process has to end by itself, with code 0 and without a sanitizer report. */
    async stop() {
        if (!this.exit) {
            this.signal('SIGTERM');
            await this.waitExit();
        }
        if (this.exit.code !== 0) throw new Error(`${this.name} ended with ${JSON.stringify(this.exit)}\n${this.logTail()}`);
    }

    async waitExit(timeoutMs = 10_000) {
        let timer;
        const late = new Promise((done) => (timer = setTimeout(done, timeoutMs, 'late')));
        const what = await Promise.race([this.exited, late]);
        clearTimeout(timer);
        if (what === 'late') {
            this.child.kill('SIGKILL');
            throw new Error(`${this.name} did not end within ${timeoutMs} ms\n${this.logTail()}`);
        }
        this.checkSanitizer();
        return what;
    }

    /** For tests that are done with a process whose end is not their subject. */
    async kill() {
        if (!this.exit) this.child.kill('SIGKILL');
        await this.exited;
    }

    rssBytes() {
        const status = readFileSync(`/proc/${this.pid}/status`, 'utf8');
        return Number(/VmRSS:\s+(\d+) kB/.exec(status)[1]) * 1024;
    }

    /** Open sockets of any kind, event loop internals not included. */
    sockets() {
        const dir = `/proc/${this.pid}/fd`;
        let count = 0;
        for (const fd of readdirSync(dir)) {
            try {
                if (readlinkSync(join(dir, fd)).startsWith('socket:')) count++;
            } catch {
                // closed meanwhile
            }
        }
        return count;
    }

    /** /metrics as Map: name with labels -> number. */
    async metrics() {
        const response = await request(this, { path: '/metrics', method: 'GET' });
        const samples = new Map();
        for (const line of response.text.split('\n')) {
            const m = /^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)$/.exec(line);
            if (m) samples.set(m[1], Number(m[2]));
        }
        return samples;
    }
}

/** What the kernel holds for each TCP connection of this machine: Map 'local port>remote port' -> {tx: not yet acknowledged, rx: not yet read}. */
export function tcpQueues() {
    const queues = new Map();
    for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
        const m = /^\s*\d+: [0-9A-F]{8}:([0-9A-F]{4}) [0-9A-F]{8}:([0-9A-F]{4}) [0-9A-F]{2} ([0-9A-F]{8}):([0-9A-F]{8})/.exec(line);
        if (m) queues.set(`${parseInt(m[1], 16)}>${parseInt(m[2], 16)}`, { tx: parseInt(m[3], 16), rx: parseInt(m[4], 16) });
    }
    return queues;
}

/** The status of GET /readyz, or 0 when nobody answers. */
export function probe(target, path = '/readyz') {
    return new Promise((done) => {
        const req = http.get({ host: '127.0.0.1', path, agent: false, timeout: 2000, ...target }, (res) => {
            res.resume();
            done(res.statusCode);
        });
        req.on('timeout', () => req.destroy());
        req.on('error', () => done(0));
    });
}

/**
 * Starts a gateway that lives until the test ends, and is then stopped and checked.
 * options: config (sections, INI text, or a function of the gateway that gives one of them), args, env, name,
 * seed ({VARIABLE: value}: no file, and an environment of exactly these and PORT, as `env -i` gives it), prepare(gw): before the first start,
 * launcher(gw) -> a program and its arguments that become the gateway, readyTarget(gw) -> node:http options for /readyz.
 */
export async function startGateway(t, options = {}) {
    const gw = new Gateway(options);
    atEnd(t, () => (gw.child && !gw.exit ? gw.stop() : gw.checkSanitizer()));
    await gw.start();
    return gw;
}

/** One request over a connection of its own: {status, headers, text, bytes, json}. `body` that is no string or Buffer is sent as JSON. */
export function request(gw, options = {}) {
    const { path = '/v1/chat/completions', body, headers = {}, key = CLIENT_KEY, agent = false, timeoutMs = 30_000 } = options;
    const method = options.method ?? (body === undefined ? 'GET' : 'POST');
    const payload = body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
    return new Promise((done, fail) => {
        const req = http.request({
            ...(options.socketPath ? { socketPath: options.socketPath } : { host: '127.0.0.1', port: gw.port }),
            path,
            method,
            agent,
            timeout: timeoutMs,
            headers: {
                ...(key && { authorization: `Bearer ${key}` }),
                ...(payload !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }),
                ...headers,
            },
        });
        req.on('timeout', () => req.destroy(new Error(`no answer to ${method} ${path} within ${timeoutMs} ms`)));
        req.on('error', fail);
        req.on('response', async (res) => {
            try {
                const pieces = [];
                for await (const piece of res) pieces.push(piece);
                done(new Answer(res, Buffer.concat(pieces)));
            } catch (error) {
                fail(error);
            }
        });
        req.end(payload);
    });
}

class Answer {
    constructor(res, bytes) {
        this.status = res.statusCode;
        this.headers = res.headers;
        this.bytes = bytes;
    }

    get text() {
        return this.bytes.toString('utf8');
    }

    get json() {
        return JSON.parse(this.text);
    }

    /** The `error` object in OpenAI's shape; throws when it has another shape. */
    get error() {
        const body = this.json;
        const { error } = body;
        if (Object.keys(body).join() !== 'error' || Object.keys(error).sort().join() !== 'code,message,param,type')
            throw new Error(`not an error in OpenAI's shape: ${this.text}`);
        return error;
    }
}

/** The smallest chat request. */
export function chat(model, text = 'hello', more = {}) {
    return { model, messages: [{ role: 'user', content: text }], ...more };
}
