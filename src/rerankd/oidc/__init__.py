"""Signing in at an OpenID provider, by the authorization code flow with PKCE.

https://openid.net/specs/openid-connect-core-1_0.html. Knows no account, no page and no setting.
"""
