// A strict reader of event streams that takes one event at a time and can vanish between any two.
import { connect, rawRequest } from './raw.mjs';

/** What a stream said: {id, event, data}; `data` as text. Comments are left out. */
function parseBlock(block) {
    const out = { id: null, event: null, data: null };
    let comment = false;
    for (const line of block.split(/\r\n|\n|\r/)) {
        if (line.startsWith(':')) {
            comment = true;
            continue;
        }
        const m = /^(id|event|data): ?(.*)$/s.exec(line);
        if (!m) throw new Error(`not a line of an event: ${JSON.stringify(line)}`);
        if (m[1] === 'data') out.data = out.data === null ? m[2] : `${out.data}\n${m[2]}`;
        else if (out[m[1]] !== null) throw new Error(`two "${m[1]}" lines in one event: ${JSON.stringify(block)}`);
        else out[m[1]] = m[2];
    }
    if (out.data === null && !comment) throw new Error(`an event without data: ${JSON.stringify(block)}`);
    return out;
}

export class EventClient {
    constructor(raw, head) {
        this.raw = raw;
        this.head = head;
        this.text = '';
        this.clean = null; // true or false once the stream has ended
        this.seen = [];
    }

    get streamId() {
        return this.head.headers['x-chatmux-stream'];
    }

    get lastId() {
        return this.seen.at(-1)?.id ?? null;
    }

    /** The next event, or null at the end; `clean` tells which end it was. */
    async next() {
        for (;;) {
            const m = /\r\n\r\n|\n\n|\r\r/.exec(this.text);
            if (m) {
                const event = parseBlock(this.text.slice(0, m.index));
                this.text = this.text.slice(m.index + m[0].length);
                if (event.data === null) continue;
                this.seen.push(event);
                return event;
            }
            if (this.clean !== null) return null;
            let piece;
            try {
                piece = await this.raw.chunk();
            } catch (error) {
                if (!this.raw.ended) throw error;
                this.clean = false;
            }
            if (piece === null) this.clean = true;
            else if (piece) this.text += piece.toString('utf8');
            if (this.clean !== null && this.text !== '') throw new Error(`the stream ends inside an event: ${JSON.stringify(this.text.slice(0, 200))}`);
        }
    }

    async take(n) {
        for (let i = 0; i < n; i++) if ((await this.next()) === null) throw new Error(`the stream ended after ${i} of ${n} events`);
        return this;
    }

    /** Every event until the end. */
    async rest() {
        while ((await this.next()) !== null);
        return this;
    }

    vanish() {
        this.raw.reset();
    }
}

/** Sends a request and returns its stream once the head has come; with another status than 200 it throws the answer. */
export async function openEvents(t, gw, method, path, { body = null, headers = [], key } = {}) {
    const raw = await connect(t, gw);
    raw.send(rawRequest(method, path, { body: body === null ? null : JSON.stringify(body), headers, ...(key !== undefined && { key }) }));
    const head = await raw.head();
    if (head.status !== 200) throw Object.assign(new Error(`status ${head.status}`), { status: head.status, head, body: (await raw.body(head)).toString('utf8') });
    return new EventClient(raw, head);
}
