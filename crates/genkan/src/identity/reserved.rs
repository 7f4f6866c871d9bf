//! Names that are not given out under the handle domains.

/// Names that a visitor could take for the operator, for a part of the service, or for a machine.
/// Each has three to eighteen characters; shorter and longer ones are refused in any case.
pub(super) const RESERVED: &str = "
    about abuse accessibility account accounts activate adm admin administration administrator admins ads
    advertise affiliate affiliates alerts announce announcements anonymous api apis app apps archive
    atproto audit auth authenticate authentication authorize autoconfig autodiscover
    backup banned beta billing blog board bot bots broadcast business bugs
    cache calendar careers cdn certificate certificates changelog chat checkout claim client clients
    cloud code community compliance config configuration confirm connect console contact
    contactus cookie cookies copyright create customer customers
    daemon dashboard data database debug default delete demo deploy dev developer developers devs did directory
    discover dmca dns docs documentation domain domains donate download downloads
    edge edit email emails emergency enterprise entryway error errors event events everyone example explore
    faq favicon feed feedback feeds file files firehose forum forums founder free ftp
    gateway genkan guest guests guide guidelines
    handle handles health healthz help helpdesk home host hosting hostmaster hosts
    identity image images imap img impressum inbox index info internal invalid invite invites ipv4 ipv6 issues
    jobs join jwks
    key keys kids
    labeler labelers labels law leave legal license list lists live livez local localhost log login logout logs
    mail mailer mailerdaemon mailer-daemon mailserver maintenance manager market marketing metoo media member
    members message messages metrics migrate migration mobile mod moderation moderator moderators mods monitor
    mx1 mx2 myaccount
    names network networks news newsletter nobody noc noreply no-reply notification notifications notify ns1
    ns2 ns3 ns4 null
    oauth oauth2 oembed offers office official oidc onboarding operations operator ops owner
    page pages partner partners password passwords pay payment payments pds pds-admin phishing photos ping plc
    policies policy pop pop3 portal post postmaster posts premium press preview privacy private pro prod
    product production profile profiles proxy public push
    query queue
    readyz record records recovery register registration relay release releases repo report reports reset
    resolver robots root rss
    safe safety sales sandbox search secure security server servers service services session sessions settings
    setup shop signin signout signup sitemap smtp spam speedtest sql ssh ssl sso staff stage staging stat
    static stats status store studio subscribe sudo support survey svc sync sysadmin system systems
    tag tags talk team teams tech telnet terms test tester testing tests tls token tokens tools tos trust
    undefined unsubscribe update updates upload uploads usenet user username users
    verified verify version video videos vpn
    web webmail webmaster webmasters website welcome well-known widget widgets wiki wpad www www1 www2 www3
    xrpc
    you your yourname
";
