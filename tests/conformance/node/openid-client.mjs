// An exchange as a user of openid-client writes it: bearer, then bound to a key by DPoP.
import * as client from "openid-client";

const told = JSON.parse(process.env.TOLD);
const config = await client.discovery(new URL(told.issuer), told.client_id, undefined, client.None(), {
  algorithm: "oauth2",
  execute: [client.allowInsecureRequests],
});
const grantType = "urn:ietf:params:oauth:grant-type:token-exchange";

const bearer = await client.genericGrantRequest(config, grantType, told.parameters);
const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair("ES256"));
const bound = await client.genericGrantRequest(config, grantType, told.parameters, { DPoP });

let refusal;
try {
  await client.genericGrantRequest(config, grantType, {
    ...told.parameters,
    authorization_details: told.too_dear,
  });
} catch (error) {
  refusal = { error: error.error, violations: error.cause?.violations };
}
console.log(JSON.stringify({ bearer, bound, refusal }));
