// A platform with realtime sessions, as the OpenAI notes describe it (section 11), over frames of its own. It refuses a handshake in which one header is
// wrong or too much, and a client that does not mask.
import http from 'node:http';
import { atEnd } from './gateway.mjs';
import { acceptFor, BINARY, CLOSE, closePayload, frame, Frames, PING, PONG, TEXT } from './websocket.mjs';

const NEEDED = ['authorization', 'connection', 'host', 'sec-websocket-key', 'sec-websocket-version', 'upgrade', 'user-agent'];
const ALLOWED = ['openai-beta'];

export const USAGE = {
    total_tokens: 330,
    input_tokens: 210,
    output_tokens: 120,
    input_token_details: { text_tokens: 110, audio_tokens: 100, image_tokens: 0, cached_tokens: 64, cached_tokens_details: { text_tokens: 24, audio_tokens: 40, image_tokens: 0 } },
    output_token_details: { text_tokens: 20, audio_tokens: 100 },
};

class Session {
    constructor(fake, socket, key, query) {
        Object.assign(this, { fake, socket, key, query, messages: [], pings: 0, bytesOut: 0 });
        this.frames = new Frames();
        this.closed = new Promise((done) => (this.gotClose = done)); // {code, reason} of the gateway's close frame
        this.gone = new Promise((done) => socket.once('close', done));
        socket.on('data', (bytes) => this.feed(bytes));
        socket.on('error', () => {});
        socket.once('close', () => this.gotClose({ broken: true }));
    }

    feed(bytes) {
        for (const f of this.frames.feed(bytes)) {
            if (!f.masked || !f.minimal || f.rsv) this.fake.problems.push(`a frame of a client: masked ${f.masked}, minimal ${f.minimal}, rsv ${f.rsv}`);
            if (f.op === PING) {
                this.pings++;
                if (!this.deaf) this.socket.write(frame(PONG, f.data));
            } else if (f.op === CLOSE) {
                this.gotClose(f.data.length >= 2 ? { code: f.data.readUInt16BE(), reason: f.data.subarray(2).toString() } : {});
                if (!this.closeSent) this.socket.write(frame(CLOSE, f.data));
                this.socket.end();
            } else if (f.op === TEXT || f.op === BINARY) {
                const message = { binary: f.op === BINARY, data: f.data };
                this.messages.push(message);
                (this.onMessage ?? this.fake.onMessage).call(this.fake, this, message);
            }
        }
    }

    send(payload, op = typeof payload === 'string' ? TEXT : BINARY) {
        this.bytesOut += payload.length;
        return this.socket.write(frame(op, payload));
    }

    event(json) {
        return this.send(JSON.stringify({ type: json.type, event_id: `event_${this.fake.events++}`, ...json }));
    }

    close(code, reason) {
        this.closeSent = true;
        this.socket.write(frame(CLOSE, closePayload(code, reason)));
    }

    /** A whole answer with figures; `status` completed, cancelled … */
    answer({ text = 'Hello there', usage = USAGE, status = 'completed' } = {}) {
        const id = `resp_${this.fake.events}`;
        this.event({ type: 'response.created', response: { object: 'realtime.response', id, status: 'in_progress', usage: null } });
        for (const delta of text.split(/(?<= )/)) this.event({ type: 'response.output_text.delta', response_id: id, item_id: 'item_1', output_index: 0, content_index: 0, delta });
        this.event({ type: 'response.output_text.done', response_id: id, item_id: 'item_1', output_index: 0, content_index: 0, text });
        this.event({ type: 'response.done', response: { object: 'realtime.response', id, status, output: [], usage } });
    }
}

class FakeRealtime {
    constructor(options) {
        this.keys = options.keys ?? ['sk-up-one'];
        this.path = options.path ?? '/v1/realtime';
        this.query = options.query ?? 'model=gpt-realtime';
        this.sessions = [];
        this.problems = [];
        this.refuse = new Map(); // key -> {status, headers}
        this.refused = [];
        this.events = 0;
        this.onSession = options.onSession ?? ((s) => s.event({ type: 'session.created', session: { object: 'realtime.session', id: 'sess_1', model: 'gpt-realtime' } }));
        this.onMessage =
            options.onMessage ??
            ((s, m) => {
                if (m.binary) return s.send(m.data);
                const event = JSON.parse(m.data);
                if (event.type === 'response.create') s.answer(event.answer);
                else s.event({ type: `${event.type}d`.replace(/ed$/, 'ed'), item: event.item, echo: event.echo });
            });
        this.server = http.createServer((req, res) => {
            this.problems.push(`${req.method} ${req.url} instead of a WebSocket`);
            res.writeHead(404).end();
        });
        this.server.on('upgrade', (req, socket, head) => this.upgrade(req, socket, head));
    }

    check(req) {
        const names = Object.keys(req.headers);
        const missing = NEEDED.filter((name) => !names.includes(name));
        const extra = names.filter((name) => !NEEDED.includes(name) && !ALLOWED.includes(name));
        const [path, query] = req.url.split('?');
        if (missing.length + extra.length > 0) return `headers missing: ${missing}, too many: ${extra}`;
        if (req.method !== 'GET' || req.httpVersion !== '1.1') return `${req.method} HTTP/${req.httpVersion}`;
        if (path !== this.path) return `path ${path}`;
        if (query !== this.query) return `query ${query}`;
        if (req.headers['sec-websocket-version'] !== '13') return 'version';
        if (!/^Upgrade$/i.test(req.headers.connection) || !/^websocket$/i.test(req.headers.upgrade)) return 'no upgrade';
        if (Buffer.from(req.headers['sec-websocket-key'], 'base64').length !== 16) return 'key';
        if (!/^chatmux\//.test(req.headers['user-agent'])) return `user-agent ${req.headers['user-agent']}`;
        return null;
    }

    upgrade(req, socket, head) {
        const wrong = this.check(req);
        const key = req.headers.authorization?.replace(/^Bearer /, '');
        const deny = ({ status, headers = {} }) => {
            this.refused.push({ key, status });
            const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('');
            socket.end(`HTTP/1.1 ${status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n${lines}\r\n`);
        };
        if (wrong) {
            this.problems.push(wrong);
            return deny({ status: 400 });
        }
        if (!this.keys.includes(key)) return deny({ status: 401 });
        if (this.refuse.has(key)) return deny(this.refuse.get(key));
        socket.setNoDelay(true);
        socket.write(
            'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
                `Sec-WebSocket-Accept: ${acceptFor(req.headers['sec-websocket-key'])}\r\nopenai-processing-ms: 7\r\nset-cookie: a=b\r\n\r\n`,
        );
        const session = new Session(this, socket, key, req.url.split('?')[1]);
        session.beta = req.headers['openai-beta'];
        this.sessions.push(session);
        if (head.length > 0) session.feed(head);
        this.onSession(session);
    }

    /** The section of a provider that leads here. */
    provider(extra = {}) {
        return { type: 'openai', base_url: `http://127.0.0.1:${this.port}/v1`, credentials: this.keys, models: ['gpt-realtime'], ...extra };
    }
}

export async function startFakeRealtime(t, options = {}) {
    const fake = new FakeRealtime(options);
    await new Promise((done) => fake.server.listen(0, '127.0.0.1', done));
    fake.port = fake.server.address().port;
    atEnd(t, () => {
        for (const s of fake.sessions) s.socket.destroy();
        fake.server.close();
    });
    return fake;
}
