// Pictures: the official SDK asks, the demo paints; and what a provider cannot do is said plainly.
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import { CLIENT_KEY, request, scenario, startGateway, until } from '../lib/gateway.mjs';

const DEMO = { config: { 'provider demo': { type: 'demo' } } };
const client = (gw) => new OpenAI({ baseURL: gw.base, apiKey: CLIENT_KEY, maxRetries: 0 });
const PNG = Buffer.from([0x89, 0x50, 0x4e, 0x47]);

scenario('pictures are made, as bytes or as an address', async (t) => {
    const gw = await startGateway(t, DEMO);
    const { data, response } = await client(gw).images.generate({ model: 'demo-image', prompt: 'a dot', n: 2 }).withResponse();
    assert.ok(Math.abs(data.created - Date.now() / 1000) < 60);
    assert.equal(data.data.length, 2);
    assert.deepEqual(Buffer.from(data.data[1].b64_json, 'base64').subarray(0, 4), PNG);
    assert.equal(data.data[0].revised_prompt, 'a blue pixel');
    assert.equal(response.headers.get('x-chatmux-model'), 'demo-image');
    const { data: [one] } = await client(gw).images.generate({ model: 'demo-image', prompt: 'a dot', response_format: 'url' });
    assert.match(one.url, /^data:image\/png;base64,iVBO/);
    assert.equal(one.b64_json, undefined);
});

scenario('a stream of pictures', async (t) => {
    const gw = await startGateway(t, DEMO);
    const events = [];
    for await (const event of await client(gw).images.generate({ model: 'demo-image', prompt: 'a dot', n: 2, stream: true })) events.push(event);
    assert.deepEqual(events.map((e) => e.type), ['image_generation.completed', 'image_generation.completed']);
    assert.deepEqual(Buffer.from(events[0].b64_json, 'base64').subarray(0, 4), PNG);
});

scenario('pictures have their price', async (t) => {
    const gw = await startGateway(t, { config: { ...DEMO.config, 'price demo-image': { image: '0.04' } } });
    await client(gw).images.generate({ model: 'demo-image', prompt: 'a dot', n: 3 });
    const { text } = await request(gw, { path: '/metrics' });
    assert.match(text, /chatmux_cost_usd_total\{provider="demo",model="demo-image"\} 0\.12\n/);
});

scenario('pictures stand in the log and the ledger', async (t) => {
    const key = 'adm-secret-0815-4711';
    const gw = await startGateway(t, { config: { ...DEMO.config, auth: { keys: [CLIENT_KEY], admin_secret: key } } });
    const told = async (path) => (await request(gw, { path: `/admin/api/${path}`, key })).json.data.map((row) => row.images);
    await client(gw).images.generate({ model: 'demo-image', prompt: 'a dot', n: 2 });
    await until(async () => (await told('requests')).length === 1, 'the request to be logged');
    assert.deepEqual(await told('requests'), [2]);
    assert.deepEqual(await told('usage?by=model'), [2]);
    await client(gw).images.generate({ model: 'demo-image', prompt: 'a dot' });
    await until(async () => (await told('requests')).length === 2, 'the second to be logged');
    assert.deepEqual([await told('requests'), await told('usage?by=model')], [[1, 2], [3]]);
});

scenario('mistakes name the member', async (t) => {
    const gw = await startGateway(t, DEMO);
    await assert.rejects(client(gw).images.generate({ model: 'demo-image' }), (e) => e.status === 400 && e.param === 'prompt');
    await assert.rejects(client(gw).images.generate({ model: 'demo-error', prompt: 'rate_limited' }), (e) => e.status === 429);
});

scenario('what a provider cannot do is refused with its name, and others are tried', async (t) => {
    const gw = await startGateway(t, {
        config: {
            'provider demo': { type: 'demo' },
            'provider chats': { type: 'hix', credentials: 'x', models: 'painter', base_url: 'http://127.0.0.1:1' },
            'model any-painter': { targets: ['chats/painter', 'demo/demo-image'] },
        },
    });
    const video = await request(gw, { path: '/v1/videos/generations', body: { model: 'demo-image', prompt: 'x' } });
    assert.equal(video.status, 404);
    assert.match(video.json.error.message, /demo.*no videos/);
    assert.equal(video.json.error.code, 'model_not_found');
    await assert.rejects(client(gw).images.generate({ model: 'painter', prompt: 'x' }), (e) => e.status === 404 && /chats.*no images/.test(e.message));
    const { data } = await client(gw).images.generate({ model: 'any-painter', prompt: 'x' });
    assert.equal(data.length, 1);
});
