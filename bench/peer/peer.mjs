// The peer of the benchmark: oidc-provider with a token exchange (RFC 8693) and introspection (RFC 7662), all in memory.
//
// It does what a careful operator would do for speed: keys are imported once, nothing is logged, development pages and
// unused features are off, NODE_ENV is production. The exchange verifies two ES256 JWTs and signs one through the
// library itself. There is no ledger, no storage on disk and no policy: the peer is measured at its best.
//
// usage: node peer.mjs SETTINGS.json

import { readFileSync } from 'node:fs';

import { importJWK, jwtVerify } from 'jose';
import { Provider, errors } from 'oidc-provider';

const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));

async function keysByName(jwks) {
  const keys = new Map();
  for (const jwk of jwks.keys) {
    keys.set(jwk.kid, await importJWK(jwk, 'ES256'));
  }
  return (header) => {
    const key = keys.get(header.kid);
    if (!key) {
      throw new errors.InvalidGrant('unknown key');
    }
    return key;
  };
}

const provider = new Provider(settings.issuer, {
  clients: [
    {
      client_id: settings.agent,
      token_endpoint_auth_method: 'none',
      grant_types: [TOKEN_EXCHANGE],
      redirect_uris: [],
      response_types: [],
    },
    {
      client_id: settings.resourceServer.id,
      client_secret: settings.resourceServer.secret,
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  jwks: settings.signingKeys,
  routes: { token: '/oauth/token', introspection: '/oauth/introspect' },
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
  extraTokenClaims: (ctx, token) => token.actor && { act: token.actor },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    dPoP: { enabled: false },
    introspection: { enabled: true, allowedPolicy: () => true },
    userinfo: { enabled: false },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: () => ({}),
    },
  },
  ttl: { AccessToken: 120, ClientCredentials: 3600 },
});

const subjectKey = await keysByName(settings.subjectKeys);
const actorKey = await keysByName(settings.actorKeys);
const subjectRules = {
  algorithms: ['ES256'], issuer: settings.issuer, audience: settings.issuer, typ: 'delegation-grant+jwt',
};
const actorRules = { algorithms: ['ES256'], audience: settings.issuer };
const resourceServer = new provider.ResourceServer(settings.resourceServer.identifier, {
  audience: settings.resourceServer.identifier,
  accessTokenFormat: 'jwt',
  accessTokenTTL: 120,
  jwt: { sign: { alg: 'ES256' } },
});

async function verified(token, key, rules, name) {
  try {
    return (await jwtVerify(token, key, rules)).payload;
  } catch {
    throw new errors.InvalidGrant(`${name} is not acceptable`);
  }
}

function onlyAction(text) {
  let details;
  try {
    details = JSON.parse(text);
  } catch {
    throw new errors.InvalidRequest('authorization_details must be JSON');
  }
  if (!Array.isArray(details) || details.length !== 1 || details[0].type !== 'agent_action') {
    throw new errors.InvalidRequest('authorization_details must hold one agent_action');
  }
  return details;
}

async function exchange(ctx) {
  const { params, client } = ctx.oidc;
  const subject = await verified(params.subject_token, subjectKey, subjectRules, 'subject_token');
  const actor = await verified(params.actor_token, actorKey, actorRules, 'actor_token');
  if (subject.may_act?.sub !== actor.sub || subject.client_id !== client.clientId) {
    throw new errors.InvalidGrant('grant and actor do not fit');
  }
  if (params.resource !== resourceServer.identifier()) {
    throw new errors.InvalidTarget();
  }
  const details = onlyAction(params.authorization_details);

  const token = new provider.AccessToken({
    accountId: subject.sub, client, gty: 'token_exchange', rar: details, resourceServer,
  });
  token.actor = subject.may_act;
  const value = await token.save();

  ctx.body = {
    access_token: value,
    issued_token_type: ACCESS_TOKEN,
    token_type: token.tokenType,
    expires_in: token.expiration,
    authorization_details: details,
  };
}

provider.registerGrantType(TOKEN_EXCHANGE, exchange, [
  'subject_token', 'subject_token_type', 'actor_token', 'actor_token_type',
  'resource', 'requested_token_type', 'authorization_details',
]);

const server = provider.listen(settings.port, '127.0.0.1', () => {
  server.keepAliveTimeout = 60_000;
  process.stdout.write('ready\n');
});
process.on('SIGTERM', () => process.exit(0));
