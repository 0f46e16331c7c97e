// An exchange as a user of oauth4webapi writes it: bearer, then bound to a key by DPoP with the server's nonce.
import * as oauth from "oauth4webapi";

const told = JSON.parse(process.env.TOLD);
const insecure = { [oauth.allowInsecureRequests]: true };
const issuer = new URL(told.issuer);
const client = { client_id: told.client_id };

const discovery = await oauth.discoveryRequest(issuer, { algorithm: "oauth2", ...insecure });
const server = await oauth.processDiscoveryResponse(issuer, discovery);

async function exchange(parameters, options) {
  const response = await oauth.genericTokenEndpointRequest(
    server,
    client,
    oauth.None(),
    "urn:ietf:params:oauth:grant-type:token-exchange",
    parameters,
    { ...insecure, ...options },
  );
  return oauth.processGenericTokenEndpointResponse(server, client, response);
}

const bearer = await exchange(told.parameters, {});

const DPoP = oauth.DPoP(client, await oauth.generateKeyPair("ES256"));
let bound;
try {
  bound = await exchange(told.parameters, { DPoP });
} catch (error) {
  if (!oauth.isDPoPNonceError(error)) throw error;
  bound = await exchange(told.parameters, { DPoP }); // with the nonce that the answer brought
}

let refusal;
try {
  await exchange({ ...told.parameters, authorization_details: told.too_dear }, {});
} catch (error) {
  refusal = { error: error.error, violations: error.cause?.violations };
}
console.log(JSON.stringify({ bearer, bound, refusal }));
