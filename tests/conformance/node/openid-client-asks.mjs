// How a user of openid-client gets a grant: pushed request and code with PKCE, or by a device. In two steps, as told:
// a person answers in between.
import * as client from "openid-client";

const told = JSON.parse(process.env.TOLD);
const key = await crypto.subtle.importKey("jwk", told.key, { name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]);
const config = await client.discovery(
  new URL(told.issuer),
  told.client_id,
  undefined,
  client.PrivateKeyJwt({ key, kid: told.kid }),
  { algorithm: "oauth2", execute: [client.allowInsecureRequests] },
);
const authorization_details = JSON.stringify([told.details]);

const steps = {
  async push() {
    const verifier = client.randomPKCECodeVerifier();
    const state = client.randomState();
    const url = await client.buildAuthorizationUrlWithPAR(config, {
      redirect_uri: told.redirect_uri,
      code_challenge: await client.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
      state,
      authorization_details,
    });
    return { url: url.href, verifier, state };
  },
  async claim() {
    return client.authorizationCodeGrant(config, new URL(told.callback), {
      pkceCodeVerifier: told.verifier,
      expectedState: told.state,
    });
  },
  async start_device() {
    return client.initiateDeviceAuthorization(config, { authorization_details });
  },
  async poll_device() {
    return client.pollDeviceAuthorizationGrant(config, told.asked);
  },
};
console.log(JSON.stringify(await steps[told.step]()));
