// HTTP/1.1 client on a bare socket: the test chooses every byte, and when to read, stop reading or vanish.
import net from 'node:net';
import tls from 'node:tls';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLIENT_KEY, atEnd } from './gateway.mjs';

class RawClient {
    constructor(socket) {
        this.socket = socket;
        this.in = Buffer.alloc(0);
        this.ended = null; // 'end' or 'reset' once the peer has closed
        this.waiters = new Set();
        socket.on('data', (piece) => {
            this.in = this.in.length === 0 ? piece : Buffer.concat([this.in, piece]);
            this.wake();
        });
        socket.on('end', () => this.finish('end'));
        socket.on('error', () => this.finish('reset'));
        socket.on('close', () => this.finish('end'));
        this.closed = new Promise((done) => (this.reportClosed = done));
    }

    finish(how) {
        if (this.ended) return;
        this.ended = how;
        this.closedAt = performance.now();
        this.reportClosed(how);
        this.wake();
    }

    wake() {
        for (const waiter of this.waiters) waiter();
        this.waiters.clear();
    }

    /** Resolves when more bytes or the end have arrived; rejects after `timeoutMs` of silence. */
    more(timeoutMs = 10_000) {
        return new Promise((done, fail) => {
            const timer = setTimeout(() => {
                this.waiters.delete(waiter);
                fail(new Error(`nothing came for ${timeoutMs} ms; so far: ${this.in.subarray(0, 400)}`));
            }, timeoutMs);
            const waiter = () => {
                clearTimeout(timer);
                done();
            };
            this.waiters.add(waiter);
        });
    }

    send(data) {
        this.socket.write(data);
    }

    /** Sends `data` in pieces of `size` bytes, `gapMs` apart. */
    async sendPieces(data, size, gapMs = 1) {
        const bytes = Buffer.from(data);
        for (let i = 0; i < bytes.length && !this.ended; i += size) {
            this.socket.write(bytes.subarray(i, i + size));
            await sleep(gapMs);
        }
    }

    endWriting() {
        this.socket.end();
    }

    reset() {
        this.socket.resetAndDestroy();
    }

    close() {
        this.socket.destroy();
    }

    /** Bytes that the gateway has handed to the kernel for us, whether or not we have read them. */
    givenBytes(queues) {
        const { localPort, remotePort, bytesRead } = this.socket;
        const { rx } = queues.get(`${localPort}>${remotePort}`);
        const { tx } = queues.get(`${remotePort}>${localPort}`);
        return bytesRead + rx + tx;
    }

    stopReading() {
        this.socket.pause();
    }

    readOn() {
        this.socket.resume();
    }

    async take(n) {
        while (this.in.length < n) {
            if (this.ended) throw new Error(`the connection ended (${this.ended}) ${n - this.in.length} bytes early`);
            await this.more();
        }
        const bytes = this.in.subarray(0, n);
        this.in = this.in.subarray(n);
        return bytes;
    }

    async takeLine() {
        let at;
        while ((at = this.in.indexOf('\r\n')) < 0) {
            if (this.ended) throw new Error(`the connection ended (${this.ended}) inside the line "${this.in.subarray(0, 200)}"`);
            await this.more();
        }
        const line = (await this.take(at + 2)).subarray(0, at).toString('latin1');
        if (/[\r\n\0]/.test(line)) throw new Error(`control character in a head line: ${JSON.stringify(line)}`);
        return line;
    }

    /** Status line and headers: {version, status, reason, headers, raw}. Repeated names are joined with a comma. */
    async head() {
        const first = await this.takeLine();
        const m = /^HTTP\/(1\.[01]) (\d{3}) (.*)$/.exec(first);
        if (!m) throw new Error(`not a status line: ${JSON.stringify(first)}`);
        const headers = {};
        const raw = [];
        for (let line; (line = await this.takeLine()) !== ''; ) {
            const h = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/.exec(line);
            if (!h) throw new Error(`not a header line: ${JSON.stringify(line)}`);
            const name = h[1].toLowerCase();
            raw.push([h[1], h[2]]);
            headers[name] = name in headers ? `${headers[name]}, ${h[2]}` : h[2];
        }
        return { version: m[1], status: Number(m[2]), reason: m[3], headers, raw };
    }

    /** The next chunk of a chunked body; null at its end. */
    async chunk() {
        const line = await this.takeLine();
        if (!/^[0-9a-fA-F]+$/.test(line)) throw new Error(`not a chunk size: ${JSON.stringify(line)}`);
        const size = parseInt(line, 16);
        if (size === 0) {
            if ((await this.takeLine()) !== '') throw new Error('trailers after the last chunk');
            return null;
        }
        const data = Buffer.from(await this.take(size));
        if ((await this.take(2)).toString('latin1') !== '\r\n') throw new Error('chunk data is not followed by CRLF');
        return data;
    }

    async body(head, method = 'GET') {
        if (method === 'HEAD' || head.status === 204 || head.status === 304 || head.status < 200) return Buffer.alloc(0);
        const coding = head.headers['transfer-encoding'];
        const length = head.headers['content-length'];
        if (coding !== undefined && length !== undefined) throw new Error('both Transfer-Encoding and Content-Length');
        if (coding !== undefined) {
            if (coding.toLowerCase() !== 'chunked') throw new Error(`Transfer-Encoding: ${coding}`);
            const pieces = [];
            for (let piece; (piece = await this.chunk()) !== null; ) pieces.push(piece);
            return Buffer.concat(pieces);
        }
        if (length !== undefined) {
            if (!/^\d+$/.test(length)) throw new Error(`Content-Length: ${length}`);
            return Buffer.from(await this.take(Number(length)));
        }
        while (!this.ended) await this.more();
        if (this.ended !== 'end') throw new Error('the connection was reset inside a body');
        return Buffer.from(await this.take(this.in.length));
    }

    /** A whole final response; interim ones are collected in `interim`. */
    async response(method = 'GET') {
        const interim = [];
        for (;;) {
            const head = await this.head();
            if (head.status >= 100 && head.status < 200) {
                interim.push(head);
                continue;
            }
            const body = await this.body(head, method);
            return { ...head, interim, body, text: body.toString('utf8') };
        }
    }

    /** Reads a stream's body until chunk end or connection end: {bytes, clean}. clean = it ended with the last chunk. */
    async drainStream() {
        const pieces = [];
        try {
            for (let piece; (piece = await this.chunk()) !== null; ) pieces.push(piece);
            return { bytes: Buffer.concat(pieces), clean: true };
        } catch (error) {
            if (!this.ended) throw error;
            return { bytes: Buffer.concat(pieces), clean: false };
        }
    }
}

/** A connection to the gateway; closed when the test ends. `target` overrides: {port, host, path (unix socket)}. */
export async function connect(t, gw, target = {}) {
    const socket = net.connect({ host: '127.0.0.1', port: gw?.port, allowHalfOpen: true, noDelay: true, ...target });
    await new Promise((done, fail) => {
        socket.once('connect', done);
        socket.once('error', fail);
    });
    atEnd(t, () => socket.destroy());
    return new RawClient(socket);
}

/** The same over TLS; `options` as tls.connect() takes them. Rejects when the handshake fails. */
export async function connectTls(t, gw, options = {}) {
    const socket = tls.connect({ host: '127.0.0.1', port: gw.port, ALPNProtocols: ['http/1.1'], ...options });
    atEnd(t, () => socket.destroy());
    await new Promise((done, fail) => {
        socket.once('secureConnect', done);
        socket.once('error', fail);
        socket.once('close', () => fail(new Error('closed within the handshake')));
    });
    return new RawClient(socket);
}

/** A request as text. `headers` are lines; body gets its Content-Length. */
export function rawRequest(method, path, { headers = [], body = null, host = 'localhost', version = '1.1', key = CLIENT_KEY } = {}) {
    const lines = [`${method} ${path} HTTP/${version}`];
    if (host !== null) lines.push(`Host: ${host}`);
    if (key !== null) lines.push(`Authorization: Bearer ${key}`);
    lines.push(...headers);
    if (body !== null) lines.push('Content-Type: application/json', `Content-Length: ${Buffer.byteLength(body)}`);
    return `${lines.join('\r\n')}\r\n\r\n${body ?? ''}`;
}

export function rawChat(body, options = {}) {
    return rawRequest('POST', '/v1/chat/completions', { ...options, body: typeof body === 'string' ? body : JSON.stringify(body) });
}

/** Strict reader of our event streams: [{data, comment}]; throws at anything that is not `data: …` or a comment. */
export function parseSse(bytes) {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    const events = [];
    const blocks = text.split('\n\n');
    const rest = blocks.pop();
    if (rest !== '') throw new Error(`the stream ends inside an event: ${JSON.stringify(rest.slice(0, 200))}`);
    for (const block of blocks) {
        if (block.startsWith(':')) events.push({ comment: block.slice(1) });
        else if (/^data: [^\n]*$/.test(block)) events.push({ data: block.slice(6) });
        else throw new Error(`not an event of this dialect: ${JSON.stringify(block.slice(0, 200))}`);
    }
    return events;
}

/** Reads events as the SDKs do: any line end, comments, other fields, several data lines. For what is relayed as it came. */
export function parseForeignSse(bytes) {
    const events = [];
    let data = [];
    for (const line of new TextDecoder('utf-8', { fatal: true }).decode(bytes).split(/\r\n|\n|\r/)) {
        if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
        else if (line === '' && data.length > 0) {
            events.push({ data: data.join('\n') });
            data = [];
        }
    }
    return events;
}

/** The JSON values of a stream and how it ended: {chunks, done, error, text, finish}. */
export function readChatStream(bytes, parse = parseSse) {
    const out = { chunks: [], done: false, error: null, text: '', finish: null };
    for (const event of parse(bytes)) {
        if (event.data === undefined) continue;
        if (out.done || out.error) throw new Error(`an event after the end: ${event.data}`);
        if (event.data === '[DONE]') {
            out.done = true;
            continue;
        }
        const value = JSON.parse(event.data);
        if (value.error) {
            out.error = value.error;
            continue;
        }
        out.chunks.push(value);
        out.text += value.choices[0]?.delta.content ?? '';
        out.finish ??= value.choices[0]?.finish_reason ?? null;
    }
    return out;
}
