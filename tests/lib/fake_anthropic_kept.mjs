// What the strict Messages API keeps for an account: message batches and files (protocol notes, section 1; pass-through only for a gateway).
// An object is known to the key that made it and to nobody else.

const BETA = 'files-api-2025-04-14';
const ID = '[A-Za-z0-9_]+';
const ROUTES = [
    ['POST', '/v1/messages/batches', 'createBatch'], ['GET', '/v1/messages/batches', 'listBatches'], ['GET', `/v1/messages/batches/(${ID})`, 'getBatch'],
    ['GET', `/v1/messages/batches/(${ID})/results`, 'results'], ['POST', `/v1/messages/batches/(${ID})/cancel`, 'cancelBatch'], ['DELETE', `/v1/messages/batches/(${ID})`, 'deleteBatch'],
    ['POST', '/v1/files', 'createFile'], ['GET', '/v1/files', 'listFiles'], ['GET', `/v1/files/(${ID})/content`, 'content'], ['DELETE', `/v1/files/(${ID})`, 'deleteFile'],
];

/** The route of a request: {name, id}, or null. */
export function keptRoute(method, path) {
    for (const [m, pattern, name] of ROUTES) {
        const found = method === m && new RegExp(`^${pattern}$`).exec(path);
        if (found) return { name, id: found[1] };
    }
    return null;
}

const json = (body, status = 200) => ({ status, type: 'application/json', body: JSON.stringify(body) });

export class Kept {
    /** refuse(status, message, type) makes an error; checkParams(params, rec) is what a message must look like. */
    constructor(fake, refuse, checkParams) {
        Object.assign(this, { fake, refuse, checkParams, serial: 0, batches: new Map(), files: new Map() });
    }

    find(map, rec, id) {
        const kept = map.get(id);
        if (!kept || kept.key !== rec.key) throw this.refuse(404, `No such object: ${id}`, 'not_found_error');
        return kept;
    }

    describe({ id, requests, status }) {
        const ended = status === 'ended';
        return {
            id, type: 'message_batch', processing_status: status, created_at: '2026-11-20T00:00:00Z', expires_at: '2026-11-21T00:00:00Z', ended_at: ended ? '2026-11-20T00:01:00Z' : null,
            request_counts: { processing: ended ? 0 : requests.length, succeeded: ended ? requests.length : 0, errored: 0, canceled: 0, expired: 0 },
            results_url: ended ? `${this.fake.base}/v1/messages/batches/${id}/results` : null,
        };
    }

    answer(rec, { name, id }) {
        if (name.toLowerCase().includes('file') || name === 'content')
            if (!(rec.headers['anthropic-beta'] ?? '').split(',').includes(BETA)) throw this.refuse(400, `this needs the beta ${BETA}`);
        return this[name](rec, id);
    }

    createBatch(rec) {
        const { requests, ...more } = JSON.parse(rec.body);
        if (!Array.isArray(requests) || requests.length === 0 || Object.keys(more).length > 0) throw this.refuse(400, 'requests: List should have at least 1 item');
        for (const { custom_id: name, params } of requests) {
            if (!/^[a-zA-Z0-9_-]{1,64}$/.test(name)) throw this.refuse(400, 'requests.0.custom_id: String should match pattern');
            this.checkParams(params, rec);
        }
        const batch = { id: `msgbatch_${++this.serial}`, key: rec.key, requests, status: 'ended' };
        this.batches.set(batch.id, batch);
        return json(this.describe({ ...batch, status: 'in_progress' }));
    }

    listBatches(rec) {
        const data = [...this.batches.values()].filter((b) => b.key === rec.key).map((b) => this.describe(b));
        return json({ data, has_more: false, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null });
    }

    getBatch(rec, id) {
        return json(this.describe(this.find(this.batches, rec, id)));
    }

    cancelBatch(rec, id) {
        return json(this.describe({ ...this.find(this.batches, rec, id), status: 'canceling' }));
    }

    deleteBatch(rec, id) {
        this.find(this.batches, rec, id);
        this.batches.delete(id);
        return json({ id, type: 'message_batch_deleted' });
    }

    results(rec, id) {
        const lines = this.find(this.batches, rec, id).requests.map(({ custom_id, params }) => {
            const message = { id: `msg_${custom_id}`, type: 'message', role: 'assistant', model: params.model, content: [{ type: 'text', text: `"results_url":"${custom_id}"` }], stop_reason: 'end_turn', usage: { input_tokens: 1, output_tokens: 1 } };
            return JSON.stringify({ custom_id, result: { type: 'succeeded', message } });
        });
        return { status: 200, type: 'application/x-jsonl', body: lines.join('\n') + '\n' };
    }

    createFile(rec) {
        const boundary = /^multipart\/form-data; ?boundary=(\S+)$/.exec(rec.headers['content-type'] ?? '')?.[1];
        const form = rec.body.toString('latin1').split(`--${boundary}`);
        const part = form.find((p) => /name="file"; filename="/.test(p));
        if (!boundary || !part) throw this.refuse(400, 'file: Field required');
        const bytes = Buffer.from(part.slice(part.indexOf('\r\n\r\n') + 4, -2), 'latin1');
        const file = { id: `file_${++this.serial}`, key: rec.key, name: /filename="([^"]*)"/.exec(part)[1], bytes };
        this.files.set(file.id, file);
        return json({ id: file.id, type: 'file', filename: file.name, size_bytes: bytes.length, mime_type: 'text/plain', created_at: '2026-11-20T00:00:00Z', downloadable: true });
    }

    listFiles(rec) {
        const data = [...this.files.values()].filter((f) => f.key === rec.key).map((f) => ({ id: f.id, type: 'file', filename: f.name }));
        return json({ data, has_more: false, first_id: null, last_id: null });
    }

    content(rec, id) {
        return { status: 200, type: 'text/plain', body: this.find(this.files, rec, id).bytes };
    }

    deleteFile(rec, id) {
        this.find(this.files, rec, id);
        this.files.delete(id);
        return json({ id, type: 'file_deleted' });
    }
}
