// WebSocket frames, and a client with every byte in the test's hand. Written from RFC 6455, with Node's crypto only.
import crypto from 'node:crypto';
import net from 'node:net';
import tls from 'node:tls';
import { atEnd, CLIENT_KEY } from './gateway.mjs';

export const TEXT = 1;
export const BINARY = 2;
export const CLOSE = 8;
export const PING = 9;
export const PONG = 10;

/** What a server answers to this Sec-WebSocket-Key. */
export const acceptFor = (key) => crypto.createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');

/** One frame. options: fin, rsv (0 to 7), mask (Buffer of 4, null = none), form (126 or 127: a longer length than needed). */
export function frame(op, payload = '', { fin = true, rsv = 0, mask = null, form = 0 } = {}) {
    const data = Buffer.from(payload);
    const kind = form || (data.length < 126 ? data.length : data.length < 65536 ? 126 : 127);
    const length = kind === 126 ? Buffer.alloc(2) : kind === 127 ? Buffer.alloc(8) : Buffer.alloc(0);
    if (kind === 126) length.writeUInt16BE(data.length);
    if (kind === 127) length.writeBigUInt64BE(BigInt(data.length));
    const head = Buffer.from([(fin ? 0x80 : 0) | (rsv << 4) | op, (mask ? 0x80 : 0) | kind]);
    if (mask) for (let i = 0; i < data.length; i++) data[i] ^= mask[i & 3];
    return Buffer.concat([head, length, mask ?? Buffer.alloc(0), data]);
}

export function closePayload(code, reason = '') {
    if (code === undefined) return Buffer.alloc(0);
    const bytes = Buffer.alloc(2);
    bytes.writeUInt16BE(code);
    return Buffer.concat([bytes, Buffer.from(reason)]);
}

/** Bytes to frames: feed(bytes) gives {op, fin, data, masked, minimal} in order. */
export class Frames {
    constructor() {
        this.pieces = [];
        this.size = 0;
        this.need = 2;
    }

    feed(bytes) {
        this.pieces.push(bytes);
        this.size += bytes.length;
        const frames = [];
        while (this.size >= this.need) {
            const all = this.pieces.length === 1 ? this.pieces[0] : Buffer.concat(this.pieces);
            this.pieces = [all];
            const kind = all[1] & 0x7f;
            const masked = (all[1] & 0x80) !== 0;
            let at = 2 + (kind === 126 ? 2 : kind === 127 ? 8 : 0);
            const head = at + (masked ? 4 : 0);
            if (this.size < head) {
                this.need = head;
                break;
            }
            const n = kind === 126 ? all.readUInt16BE(2) : kind === 127 ? Number(all.readBigUInt64BE(2)) : kind;
            this.need = head + n;
            if (this.size < this.need) break;
            const mask = masked ? all.subarray(at, at + 4) : null;
            const data = Buffer.from(all.subarray(head, head + n));
            if (mask) for (let i = 0; i < n; i++) data[i] ^= mask[i & 3];
            frames.push({ op: all[0] & 15, rsv: (all[0] >> 4) & 7, fin: (all[0] & 0x80) !== 0, data, masked, minimal: kind < 126 || (kind === 126 ? n > 125 : n > 65535) });
            this.pieces = [all.subarray(this.need)];
            this.size -= this.need;
            this.need = 2;
        }
        return frames;
    }
}

/** Frames that come, one after the other, for a test to wait for. */
class Inbox {
    constructor() {
        this.waiting = [];
        this.kept = [];
    }

    put(item) {
        const next = this.waiting.shift();
        if (next) next.done(item);
        else this.kept.push(item);
    }

    next(what = 'a frame', timeoutMs = 8000) {
        if (this.kept.length > 0) return Promise.resolve(this.kept.shift());
        return new Promise((done, fail) => {
            const timer = setTimeout(() => fail(new Error(`waited ${timeoutMs} ms for ${what}`)), timeoutMs);
            this.waiting.push({ done: (item) => (clearTimeout(timer), done(item)) });
        });
    }
}

/**
 * A client of /v1/realtime, before and after its handshake. options: path, key, headers (a null takes one of ours away), protocols, secure (TLS options),
 * behind (bytes right behind the request).
 * `answer` {status, headers, text}; then next(): {op, fin, data, json, code, reason}, or {end: true} when the connection has ended.
 */
export class Client {
    constructor(gw, { path = '/v1/realtime?model=gpt-realtime', key = CLIENT_KEY, headers = {}, protocols, secure, behind, method = 'GET', version = 'HTTP/1.1' } = {}) {
        this.inbox = new Inbox();
        this.frames = new Frames();
        this.head = Buffer.alloc(0);
        this.nonce = crypto.randomBytes(16).toString('base64');
        this.bytesIn = 0;
        const all = {
            Host: `127.0.0.1:${gw.port}`,
            Connection: 'Upgrade',
            Upgrade: 'websocket',
            'Sec-WebSocket-Version': '13',
            'Sec-WebSocket-Key': this.nonce,
            ...(protocols && { 'Sec-WebSocket-Protocol': protocols.join(', ') }),
            ...(key && { Authorization: `Bearer ${key}` }),
            ...headers,
        };
        const lines = Object.entries(all).flatMap(([name, value]) => (value === null ? [] : [`${name}: ${value}`]));
        this.socket = secure ? tls.connect({ host: '127.0.0.1', port: gw.port, ...secure }) : net.connect(gw.port, '127.0.0.1');
        this.answered = new Promise((done, fail) => {
            this.answer = null;
            this.gotAnswer = done;
            this.socket.on('error', fail);
        });
        this.answered.catch(() => {});
        this.socket.on('error', () => {});
        this.socket.on('data', (bytes) => this.take(bytes));
        this.closed = new Promise((done) => this.socket.on('close', () => (this.inbox.put({ end: true }), done())));
        this.socket.write(Buffer.concat([Buffer.from(`${method} ${path} ${version}\r\n${lines.join('\r\n')}\r\n\r\n`), behind ?? Buffer.alloc(0)]));
    }

    take(bytes) {
        this.bytesIn += bytes.length;
        if (this.answer?.status === 101) {
            for (const f of this.frames.feed(bytes)) this.inbox.put(this.read(f));
            return;
        }
        this.head = Buffer.concat([this.head, bytes]);
        const end = this.head.indexOf('\r\n\r\n');
        if (end < 0) return;
        const [first, ...lines] = this.head.subarray(0, end).toString().split('\r\n');
        const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]));
        const rest = this.head.subarray(end + 4);
        const status = Number(first.split(' ')[1]);
        if (status !== 101 && rest.length < Number(headers['content-length'])) return;
        this.answer = { status, headers, text: status === 101 ? '' : rest.toString() };
        this.gotAnswer(this.answer);
        if (status === 101 && rest.length > 0) this.take(rest);
    }

    read(f) {
        if (f.masked || !f.minimal) throw new Error('a server must not mask, and writes lengths in their shortest form');
        const item = { ...f };
        if (f.op === TEXT && f.fin && f.data.length < 4096) {
            try {
                item.json = JSON.parse(f.data);
            } catch {
                // no JSON
            }
        }
        if (f.op === CLOSE && f.data.length >= 2) [item.code, item.reason] = [f.data.readUInt16BE(), f.data.subarray(2).toString()];
        return item;
    }

    next(what) {
        return this.inbox.next(what);
    }

    /** The next frame that is no ping or pong. */
    async message(what) {
        for (;;) {
            const f = await this.next(what);
            if (f.op !== PING && f.op !== PONG) return f;
        }
    }

    /** Up to the close frame, or the end. */
    async untilClose() {
        for (;;) {
            const f = await this.next('a close frame');
            if (f.end || f.op === CLOSE) return f;
        }
    }

    raw(bytes) {
        this.socket.write(bytes);
    }

    send(payload, op = typeof payload === 'string' ? TEXT : BINARY, options = {}) {
        return this.socket.write(frame(op, payload, { mask: crypto.randomBytes(4), ...options }));
    }

    event(json) {
        return this.send(JSON.stringify(json));
    }

    close(code, reason) {
        this.send(closePayload(code, reason), CLOSE);
    }
}

/** A client whose handshake is done, with any result. */
export async function connectRealtime(t, gw, options) {
    const c = new Client(gw, options);
    atEnd(t, () => c.socket.destroy());
    await c.answered;
    return c;
}
