// A resource server in JavaScript with jose and nothing else: token, DPoP proof, status list, and what the token allows.
import { createHash } from "node:crypto";
import { inflateSync } from "node:zlib";
import { EmbeddedJWK, calculateJwkThumbprint, createRemoteJWKSet, jwtVerify } from "jose";

class Refused extends Error {}

const keySets = new Map();
function keysOf(issuer) {
  if (!keySets.has(issuer)) keySets.set(issuer, createRemoteJWKSet(new URL(`${issuer}/oauth/jwks`)));
  return keySets.get(issuer);
}

async function verified(token, keys, options, why) {
  try {
    return await jwtVerify(token, keys, options);
  } catch (error) {
    throw new Refused(why, { cause: error });
  }
}

// RFC 9449 §4.3. Remember `jti` for five minutes, in a place that all processes share, and refuse it the second time.
async function checkProof({ token, proof, method, url }, claims) {
  if (!claims.cnf) return;
  const { payload, protectedHeader } = await verified(
    proof ?? "", EmbeddedJWK, { typ: "dpop+jwt", algorithms: ["ES256"], maxTokenAge: 300 }, "dpop",
  );
  if (payload.htm !== method) throw new Refused("dpop.htm");
  if (payload.htu !== url) throw new Refused("dpop.htu");
  if (payload.ath !== createHash("sha256").update(token).digest("base64url")) throw new Refused("dpop.ath");
  if ((await calculateJwkThumbprint(protectedHeader.jwk)) !== claims.cnf.jkt) throw new Refused("dpop.jkt");
}

// draft-ietf-oauth-status-list §8.3. Keep the list for its `ttl`; no list means no, where money or data are at stake.
async function checkStatus(issuer, { uri, idx }) {
  if (!uri.startsWith(`${issuer}/`)) throw new Refused("status");
  const answer = await fetch(uri, { redirect: "error" });
  const { payload } = await verified(
    await answer.text(), keysOf(issuer), { issuer, subject: uri, typ: "statuslist+jwt", algorithms: ["ES256"] }, "status",
  );
  const packed = Buffer.from(payload.status_list.lst, "base64url");
  const bits = inflateSync(packed, { maxOutputLength: 2 * 1024 * 1024 });
  if (payload.status_list.bits !== 1 || idx >= bits.length * 8) throw new Refused("status");
  if ((bits[idx >> 3] >> (idx & 7)) & 1) throw new Refused("ended");
}

export async function check(request) {
  const { issuer, audience } = request;
  const { payload } = await verified(
    request.token, keysOf(issuer), { issuer, audience, typ: "at+jwt", algorithms: ["ES256"] }, "token",
  );
  if (payload.aud !== audience) throw new Refused("token"); // one audience, and no other beside it
  await checkProof(request, payload);
  await checkStatus(issuer, payload.status.status_list);
  const [details] = payload.authorization_details;
  if (details.actions[0] !== request.action) throw new Refused("action");
  const { amount } = details;
  const covers = amount.currency === request.amount.currency && Number(amount.value) >= Number(request.amount.value);
  if (!covers) throw new Refused("amount");
  return payload; // redeem it before money moves: POST {issuer}/oauth/redeem
}

const answers = [];
for (const request of JSON.parse(process.env.TOLD).requests) {
  try {
    await check(request);
    answers.push("allowed");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    answers.push(error.message);
  }
}
console.log(JSON.stringify({ answers }));
