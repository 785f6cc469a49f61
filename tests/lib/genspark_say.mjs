// How the fake genspark answers: events of both dialects as its site writes them, and the behaviours that tests choose from.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

export const NOT_LOGIN = { status: -5, message: 'not login', data: {} };

/** JSON as Python writes it: a space behind colons and commas. */
export function spaced(value) {
    if (Array.isArray(value)) return `[${value.map(spaced).join(', ')}]`;
    if (value !== null && typeof value === 'object')
        return `{${Object.entries(value).filter(([, v]) => v !== undefined).map(([k, v]) => `${JSON.stringify(k)}: ${spaced(v)}`).join(', ')}}`;
    return JSON.stringify(value);
}

export class StreamWriter {
    constructor(rec, split) {
        Object.assign(this, { rec, split, index: 0, message: randomUUID() });
    }

    async raw(text) {
        const { res } = this.rec;
        if (res.destroyed) return false;
        const bytes = Buffer.from(text);
        for (let i = 0; i < bytes.length; i += this.split) {
            res.write(bytes.subarray(i, i + this.split));
            if (this.split < bytes.length) await sleep(1);
        }
        return !this.rec.isGone;
    }

    event(payload) {
        const numbered = this.rec.dialect === 'agent' ? { ...payload, _event_index: this.index++ } : payload;
        return this.raw(`data: ${spaced(numbered)}\n\n`);
    }

    start() {
        return this.event({ id: this.rec.project, type: 'project_start' });
    }

    delta(field_name, delta, message_id = this.message) {
        return this.event({ message_id, field_name, delta, project_id: this.rec.project, type: 'message_field_delta' });
    }

    field(field_name, field_value, message_id = this.message) {
        return this.event({ message_id, field_name, field_value, project_id: this.rec.project, type: 'message_field' });
    }

    begin(role = 'assistant', message_id = this.message) {
        return this.event({ message_id, role, project_id: this.rec.project, tool_call_id: null, type: 'message_start' });
    }

    text(piece) {
        return this.delta(this.rec.dialect === 'agent' ? 'content' : 'session_state.answer', piece);
    }

    /** The assistant's message as a whole: the end in the copilot dialect. */
    result(content, { served = this.rec.model, more = {} } = {}) {
        if (this.rec.dialect === 'copilot')
            return this.event({ id: this.message, role: 'assistant', content, action: null, recommend_actions: null, is_prompt: false, render_template: null, session_state: null, message_type: null, ...more, type: 'message_result' });
        const session_state = served === null ? {} : { _llm_model: served, _llm_usage: {} };
        return this.event({ message_id: this.message, message: { id: this.message, role: 'assistant', content, session_state, ...more }, project_id: this.rec.project, type: 'message_result' });
    }

    async end() {
        if (this.rec.dialect === 'agent') {
            this.rec.over();
            await this.event({ id: this.rec.project, field_name: 'status', field_value: 'FINISHED', type: 'project_field' });
        }
        this.rec.over();
        this.rec.res.end();
    }
}

/** Behaviours of an ask: async (rec) => void. */
export const say = {
    /** Reasoning, sources, the text in pieces, the end. */
    answer({ pieces = ['Blue'], reasoning = [], sources = null, preamble = null, served, gapMs = 0 } = {}) {
        return async (rec) => {
            const w = rec.openStream();
            await w.start();
            if (rec.dialect === 'agent') {
                await w.field('_updatetime', '2026-01-01T00:00:00.000000', rec.project);
                if (sources) {
                    const tool = randomUUID();
                    await w.begin();
                    if (preamble) await w.text(preamble);
                    await w.field('tool_calls[0]', { function: { name: 'web_search', arguments: null }, type: 'function', id: 'tooluse_1' });
                    await w.delta('tool_calls[0].function.arguments', '{"q": "x"}');
                    await w.result(preamble ?? '', { served, more: { tool_calls: [{ id: 'tooluse_1' }] } });
                    await w.begin('tool', tool);
                    await w.delta('content', 'not the answer', tool);
                    await w.event({ message_id: tool, message: { id: tool, role: 'tool', content: JSON.stringify({ results: sources }) }, project_id: rec.project, type: 'message_result' });
                    w.message = randomUUID();
                }
                await w.begin();
                await w.field('reasoning_encrypted_content', 'AAAA');
            }
            if (reasoning.length > 0) {
                await w.field('session_state.answerthink_is_started', true);
                for (const piece of reasoning) await w.delta('session_state.answerthink', piece);
                await w.field('session_state.answerthink_is_finished', true);
            }
            for (const piece of pieces) {
                if (!(await w.text(piece))) return;
                if (gapMs > 0) await sleep(gapMs);
            }
            const whole = pieces.join('');
            if (rec.dialect === 'agent') {
                await w.event({ type: 'agent_notification', _x: 1 });
                await w.field('content', whole);
            } else {
                await w.field('session_state.answer_is_finished', true);
            }
            await w.result(whole, { served });
            await w.end();
        };
    },

    /** One complete message without pieces; `served` null: no model is named, as in the site's own sentences. */
    sentence(text, { served = null, more } = {}) {
        return async (rec) => {
            const w = rec.openStream();
            await w.start();
            if (rec.dialect === 'agent') await w.text(text);
            await w.result(text, { served, more });
            await w.end();
        };
    },

    /** Piece n+1 only after confirm() for piece n. */
    lockstep(pieces) {
        let release = () => {};
        let tickets = 0;
        const behave = async (rec) => {
            const w = rec.openStream();
            await w.start();
            for (const piece of pieces) {
                await w.text(piece);
                while (tickets === 0 && !rec.isGone) await Promise.race([new Promise((done) => (release = done)), rec.gone]);
                if (rec.isGone) return;
                tickets--;
            }
            await w.result(pieces.join(''));
            await w.end();
        };
        return Object.assign(behave, { confirm: () => (tickets++, release()) });
    },

    /** Pieces and then the end of the connection. */
    cut(pieces = ['half ']) {
        return async (rec) => {
            const w = rec.openStream();
            await w.start();
            for (const piece of pieces) await w.text(piece);
            rec.over();
            rec.res.end();
        };
    },

    /** Begins and says nothing more. */
    hang() {
        return async (rec) => {
            await rec.openStream().start();
        };
    },

    limit(value) {
        return async (rec) => {
            const w = rec.openStream();
            await w.start();
            await w.field('session_state.session_limit_message', value);
            await w.result(typeof value === 'string' ? value : value.value, { served: null });
            await w.end();
        };
    },

    status(code, body, headers = {}) {
        return (rec) => {
            rec.over();
            rec.res.writeHead(code, { 'content-type': typeof body === 'string' ? 'text/html' : 'application/json', ...headers });
            rec.res.end(typeof body === 'string' ? body : JSON.stringify(body));
        };
    },

    notLogin: (code = 401) => say.status(code, NOT_LOGIN),
    challenge: () => say.status(403, '<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title></head><body><script>window._cf_chl_opt={}</script></body></html>', { 'cf-mitigated': 'challenge' }),
    blocked: () => say.status(403, '<html><body><h1 data-translate="block_headline">Sorry, you have been blocked</h1></body></html>'),
    outOfService: () => say.status(200, '<!doctype html><html><head><title>Genspark</title></head><body><img src="https://gensparkpublicblob-cdn-x.z03.azurefd.net/genspark_logo.png"><div class="tt">Service Unavailable</div></body></html>'),
    retired: () => say.sentence('This feature has been retired. Please use AI chat.'),
    quota: () => say.sentence("You've reached your free usage limit today", { more: { action: { type: 'ACTION_QUOTA_EXCEEDED' }, session_state: { consume_usage_quota_exceeded: true } } }),
};
